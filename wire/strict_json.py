"""JSON from a place we do not trust, to plain values: what readers disagree on is refused, not guessed.

RFC 8259 leaves open what a key that stands twice means, and lets texts through that nothing can store or send on.
Here size and depth are bounded, and every refusal comes in milliseconds.
"""

from __future__ import annotations

import json
import math
from typing import Final

JSON_DEPTH_MAX: Final = 8
INTEGER_DIGITS_MAX: Final = 20  # of a uint64


class JsonRefusedError(ValueError):
    """These bytes are not taken for JSON. The message says why and quotes nothing of them."""


def parse_json(raw: bytes, bytes_max: int, depth_max: int = JSON_DEPTH_MAX) -> object:
    """Return the value in `raw`.

    Args:
        raw: a whole JSON text in UTF-8.
        bytes_max: longest text that is looked at.
        depth_max: how deep lists and objects may stand in each other.

    Raises:
        JsonRefusedError: longer or deeper than that; not JSON (NaN and Infinity are not); a key twice in one object;
            a number beyond a double or a uint64's digits; half of a surrogate pair in a text.
    """
    if len(raw) > bytes_max:
        raise JsonRefusedError(f"longer than {bytes_max} bytes")
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
    except JsonRefusedError:
        raise
    except RecursionError:
        raise JsonRefusedError(f"nested deeper than {depth_max}") from None
    except ValueError:
        raise JsonRefusedError("not JSON in UTF-8") from None
    _check(value, depth_max)
    return value


def parse_json_object(raw: bytes, bytes_max: int, depth_max: int = JSON_DEPTH_MAX) -> dict[str, object]:
    """Return the object in `raw`. Raises as `parse_json`, and when it is no object."""
    value = parse_json(raw, bytes_max, depth_max)
    if not isinstance(value, dict):
        raise JsonRefusedError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonRefusedError("a key stands twice")
    return found


def _constant(_name: str) -> object:
    raise JsonRefusedError("NaN and Infinity are not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonRefusedError("a number is too large")
    return number


def _int(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS_MAX:
        raise JsonRefusedError("a number is too long")
    return int(text)


def _check(value: object, depth_max: int) -> None:
    """Walk the value without recursion: how deep it is, and whether every text can be written as UTF-8."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        containers = False
        for item in level:
            if isinstance(item, str):
                _encodes(item)
            elif isinstance(item, dict):
                containers = True
                below += item.values()
                for key in item:
                    _encodes(key)
            elif isinstance(item, list):
                containers = True
                below += item
        depth += containers
        if depth > depth_max:
            raise JsonRefusedError(f"nested deeper than {depth_max}")
        level = below


def _encodes(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonRefusedError("half of a surrogate pair in a text") from None
