"""Core: MQTT in, evaluated, committed, acknowledged, delivered. A process of its own that waits for nothing else."""

from gateway.core.acts import TEXT_CHARS_MAX, has_control_characters, send_act
from gateway.core.app import ACTS_NAME, HEARTBEAT_NAME, LEDGER_NAME, Core, run_core
from gateway.core.errors import (
    ActsSocketError,
    CoreError,
    DataFolderBusyError,
    LedgerFormatError,
    LedgerOlderError,
    LedgerVersionError,
)
from gateway.core.ledger import Batch, Committed, Ledger
from gateway.core.migrations import schema_version, upgrade_ledger
from gateway.core.ports import Ports
from gateway.core.reader import FrameValues, LedgerReader
from gateway.core.snapshots import Snapshot, write_snapshot
from gateway.core.task_writer import TaskWriter
from gateway.core.writer import Ballast, OnCommitted, OnTrouble

__all__ = [
    "ACTS_NAME",
    "HEARTBEAT_NAME",
    "LEDGER_NAME",
    "TEXT_CHARS_MAX",
    "ActsSocketError",
    "Ballast",
    "Batch",
    "Committed",
    "Core",
    "CoreError",
    "DataFolderBusyError",
    "FrameValues",
    "Ledger",
    "LedgerFormatError",
    "LedgerOlderError",
    "LedgerReader",
    "LedgerVersionError",
    "OnCommitted",
    "OnTrouble",
    "Ports",
    "Snapshot",
    "TaskWriter",
    "has_control_characters",
    "run_core",
    "schema_version",
    "send_act",
    "upgrade_ledger",
    "write_snapshot",
]
