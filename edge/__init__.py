"""Instruments to network: reads registers, keeps every sample until the gateway has it, publishes over MQTT.

It can form no request that writes to an instrument, and it knows nothing of alarms.
"""

from edge.app import Field, Ports, connector_for, run_edge
from edge.disk import AppendFile, Disk
from edge.errors import EdgeError
from edge.files import DataFolderError, DataFolderInUseError, replace_json
from edge.keeper import DiskThread
from edge.poll import Sink
from edge.recovery import JournalReader, SpooledFrame, SpooledSample, read_spool
from edge.scan import Scan
from edge.spool_file import SpoolFormatError

__all__ = [
    "AppendFile",
    "DataFolderError",
    "DataFolderInUseError",
    "Disk",
    "DiskThread",
    "EdgeError",
    "Field",
    "JournalReader",
    "Ports",
    "Scan",
    "Sink",
    "SpoolFormatError",
    "SpooledFrame",
    "SpooledSample",
    "connector_for",
    "read_spool",
    "replace_json",
    "run_edge",
]
