"""A reader of line protocol, written from the protocol's own description and nothing else: what a server would understand."""

from __future__ import annotations

from typing import NamedTuple


class Point(NamedTuple):
    measurement: str
    tags: dict[str, str]
    fields: dict[str, float | int]
    at: int


def parse(line: str) -> Point:
    """Read one line; raises ValueError for anything a server would refuse."""
    if "\n" in line or "\r" in line:
        raise ValueError("a line break ends a line")
    head, rest = _until(line, " ")
    body, rest = _until(rest, " ")
    if not rest.lstrip("-").isdigit():
        raise ValueError(f"no time: {rest!r}")
    measurement, *tags = _split(head, ",")
    read_tags = {}
    for tag in tags:
        key, *value = _split(tag, "=")
        if len(value) != 1 or not key or not value[0]:
            raise ValueError(f"no tag: {tag!r}")
        read_tags[_plain(key)] = _plain(value[0])
    fields: dict[str, float | int] = {}
    for field in _split(body, ","):
        key, _, value_text = field.partition("=")
        if not key or not value_text or value_text.lower().strip("+-") in ("nan", "inf", "infinity"):
            raise ValueError(f"no field: {field!r}")
        fields[key] = int(value_text[:-1]) if value_text.endswith("i") else float(value_text)
    return Point(measurement, read_tags, fields, int(rest))


def _until(text: str, end: str) -> tuple[str, str]:
    at = _find(text, end)
    if at < 0:
        raise ValueError(f"no {end!r} in {text!r}")
    return text[:at], text[at + 1 :]


def _split(text: str, by: str) -> list[str]:
    parts = []
    while (at := _find(text, by)) >= 0:
        parts.append(text[:at])
        text = text[at + 1 :]
    return [*parts, text]


def _find(text: str, char: str) -> int:
    """Where a character stands that no backslash is before: a backslash is never itself escaped in a tag."""
    for at, each in enumerate(text):
        if each == char and (at == 0 or text[at - 1] != "\\"):
            return at
    return -1


def _plain(text: str) -> str:
    for special in (",", " ", "="):
        text = text.replace(f"\\{special}", special)
    return text
