"""Instruments to network: reads registers, keeps every sample until the gateway has it, publishes over MQTT.

It can form no request that writes to an instrument, and it knows nothing of alarms.
"""

from edge.app import connector_for, run_edge
from edge.errors import EdgeError
from edge.files import DataFolderError, DataFolderInUseError
from edge.recovery import SpooledSample, read_spool
from edge.spool_file import SpoolFormatError

__all__ = [
    "DataFolderError",
    "DataFolderInUseError",
    "EdgeError",
    "SpoolFormatError",
    "SpooledSample",
    "connector_for",
    "read_spool",
    "run_edge",
]
