"""Core: MQTT in, evaluated, committed, acknowledged, delivered. A process of its own that waits for nothing else."""

from gateway.core.acts import send_act
from gateway.core.app import ACTS_NAME, HEARTBEAT_NAME, LEDGER_NAME, Core, run_core
from gateway.core.errors import (
    ActsSocketError,
    CoreError,
    DataFolderBusyError,
    LedgerFormatError,
    LedgerOlderError,
)
from gateway.core.reader import FrameValues, LedgerReader

__all__ = [
    "ACTS_NAME",
    "HEARTBEAT_NAME",
    "LEDGER_NAME",
    "ActsSocketError",
    "Core",
    "CoreError",
    "DataFolderBusyError",
    "FrameValues",
    "LedgerFormatError",
    "LedgerOlderError",
    "LedgerReader",
    "run_core",
    "send_act",
]
