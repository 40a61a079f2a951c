"""Plain values to YAML text that every reader understands alike.

Text is written bare only when no reader could take it for anything else, otherwise in double quotes with
escapes: a name may hold quotes, line breaks or `!!tags` and comes back as the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from config.problems import escaped

FLOW_WIDTH_MAX = 110

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
# Words that some reader of some YAML version takes for a truth value or for nothing.
_NOT_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_QUOTED = {'"': '\\"', "\\": "\\\\"}


def dump_yaml(document: dict[str, Any]) -> str:
    """Return a mapping of plain values (text, numbers, truth values, None, lists, mappings) as YAML."""
    return "".join(f"{line}\n" for line in _mapping(document)) if document else "{}\n"


def _mapping(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        inline = _inline(value)
        if inline is not None:
            yield f"{_text(key)}: {inline}"
            continue
        yield f"{_text(key)}:"
        yield from (f"  {line}" for line in (_mapping(value) if isinstance(value, dict) else _sequence(value)))


def _sequence(values: list[Any]) -> Iterator[str]:
    for value in values:
        inline = _inline(value)
        if inline is not None:
            yield f"- {inline}"
            continue
        lines = _mapping(value) if isinstance(value, dict) else _sequence(value)
        yield f"- {next(lines)}"
        yield from (f"  {line}" for line in lines)


def _inline(value: Any) -> str | None:
    """Return the value in one line, or None when it deserves a block."""
    if isinstance(value, dict):
        if any(isinstance(item, dict | list) and item for item in value.values()):
            return None
        line = "{" + ", ".join(f"{_text(key)}: {_inline(item)}" for key, item in value.items()) + "}"
        return line if len(line) <= FLOW_WIDTH_MAX or not value else None
    if isinstance(value, list):
        if any(isinstance(item, dict | list) and item for item in value):
            return None
        line = "[" + ", ".join(str(_inline(item)) for item in value) + "]"
        return line if len(line) <= FLOW_WIDTH_MAX or not value else None
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return _text(str(value))


def _text(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return '"' + "".join(_QUOTED.get(char) or (char if char.isprintable() else escaped(char)) for char in text) + '"'
