"""Typed reading of JSON objects: a field of the wrong kind is an `AnswerError` that names it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from cli.language import language

TEXT_CHARS_MAX: Final = 2_000
_NEEDED: Final[Any] = object()


class AnswerError(Exception):
    """The gateway answered something that this program does not understand (another version?)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text in both languages; the same twice where the site has one."""

    zh: str = ""
    en: str = ""

    def __str__(self) -> str:
        """Return the text in the user's language, or in the other where it has none."""
        return (self.zh or self.en) if language() == "zh" else (self.en or self.zh)


def take(body: Any, name: str, default: Any = _NEEDED) -> Any:
    """Return a field as it is; JSON null counts as absent where there is a default."""
    if not isinstance(body, dict):
        raise AnswerError(f"{name}: the answer is no object")
    value = body.get(name)
    if value is None and default is not _NEEDED:
        return default
    if name not in body:
        raise AnswerError(f"{name} is missing")
    return value


def text(body: Any, name: str, default: Any = _NEEDED) -> str:
    """Return a text, cut at a bound."""
    value = take(body, name, default)
    if not isinstance(value, str):
        raise AnswerError(f"{name} is no text")
    return value[:TEXT_CHARS_MAX]


def text_or_none(body: Any, name: str) -> str | None:
    """Return a text, or None."""
    return None if take(body, name, None) is None else text(body, name)


def texts(body: Any, name: str) -> tuple[str, ...]:
    """Return a list of texts."""
    listed = entries(body, name)
    if not all(isinstance(value, str) for value in listed):
        raise AnswerError(f"{name} holds what is no text")
    return tuple(value[:TEXT_CHARS_MAX] for value in listed)


def words(body: Any, name: str) -> Text:
    """Return `name_zh` and `name_en`."""
    return Text(text(body, f"{name}_zh"), text(body, f"{name}_en"))


def named(body: Any, name: str) -> Text:
    """Return `{zh, en}`."""
    inside = take(body, name)
    return Text(text(inside, "zh"), text(inside, "en"))


def flag(body: Any, name: str, default: Any = _NEEDED) -> bool:
    """Return true or false."""
    value = take(body, name, default)
    if not isinstance(value, bool):
        raise AnswerError(f"{name} is neither true nor false")
    return value


def flag_or_none(body: Any, name: str) -> bool | None:
    """Return true, false, or None."""
    return None if take(body, name, None) is None else flag(body, name)


def whole(body: Any, name: str, default: Any = _NEEDED) -> int:
    """Return a whole number."""
    value = take(body, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**63:
        raise AnswerError(f"{name} is no whole number")
    return value


def whole_or_none(body: Any, name: str) -> int | None:
    """Return a whole number, or None."""
    return None if take(body, name, None) is None else whole(body, name)


def number(body: Any, name: str) -> float | None:
    """Return a finite number, or None."""
    value = take(body, name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnswerError(f"{name} is no number")
    return float(value)


def counts(body: Any, name: str) -> dict[int, int]:
    """Return how many of each number, zeros left out; JSON's names are texts."""
    inside = take(body, name)
    if not isinstance(inside, dict) or not all(key.isdecimal() and len(key) < 10 for key in inside):
        raise AnswerError(f"{name} does not count by number")
    return {int(key): count for key in inside if (count := whole(inside, key))}


def entries(body: Any, name: str = "items") -> list[Any]:
    """Return a list."""
    value = take(body, name)
    if not isinstance(value, list):
        raise AnswerError(f"{name} is no list")
    return value
