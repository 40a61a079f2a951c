"""The JSON files by which the parts of a chain tell of themselves, read as what they are: somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from wire import JsonRefusedError, parse_json_object

FILE_BYTES_MAX: Final = 8 * 1024 * 1024


def read_json_file(path: Path) -> dict[str, Any]:
    """Return the object in a file that is replaced as a whole; an empty one when there is none that can be read."""
    try:
        with path.open("rb") as file:
            return parse_json_object(file.read(FILE_BYTES_MAX + 1), FILE_BYTES_MAX)
    except (OSError, JsonRefusedError):
        return {}
