"""The historian: the time-series stores that people query. Derived from the ledger; may lag, may be down.

Names are loaded when they are first asked for: core, which reads only names of segments, must not load a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gateway.historian.copy import Copied, CopyError, CopyProgress, CopyRules, DayCopied, copy_store
    from gateway.historian.export import ROWS_MAX_OF as EXPORT_ROWS_MAX
    from gateway.historian.export import ExportOrder, ExportTag, RangeReader, chosen
    from gateway.historian.export_file import ExportProgress, format_of, write_export
    from gateway.historian.load import Loaded, LoadProgress, LoadRefusedError, load_file
    from gateway.historian.load_sink import SegmentSink
    from gateway.historian.segments.store import EmbeddedHistorian
    from gateway.historian.store import Historian, HistorianError

__all__ = [
    "EXPORT_ROWS_MAX",
    "Copied",
    "CopyError",
    "CopyProgress",
    "CopyRules",
    "DayCopied",
    "EmbeddedHistorian",
    "ExportOrder",
    "ExportProgress",
    "ExportTag",
    "Historian",
    "HistorianError",
    "LoadProgress",
    "LoadRefusedError",
    "Loaded",
    "RangeReader",
    "SegmentSink",
    "chosen",
    "copy_store",
    "format_of",
    "load_file",
    "write_export",
]

_NAMES_OF: Final = {
    "copy": ("Copied", "CopyError", "CopyProgress", "CopyRules", "DayCopied", "copy_store"),
    "export": ("ExportOrder", "ExportTag", "RangeReader", "chosen"),
    "export_file": ("ExportProgress", "format_of", "write_export"),
    "load": ("LoadProgress", "LoadRefusedError", "Loaded", "load_file"),
    "load_sink": ("SegmentSink",),
    "segments.store": ("EmbeddedHistorian",),
    "store": ("Historian", "HistorianError"),
}
_HOMES: Final = {name: (home, name) for home, names in _NAMES_OF.items() for name in names} | {
    "EXPORT_ROWS_MAX": ("export", "ROWS_MAX_OF")
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, own_name = _HOMES[name]
    found = getattr(import_module(f"{__name__}.{home}"), own_name)
    globals()[name] = found
    return found
