"""Export as CSV: RFC 4180, UTF-8, texts neutralised, numbers as they are (F52)."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import tzinfo
from io import StringIO
from itertools import repeat
from typing import Final

from gateway.historian.export import Piece
from gateway.historian.export_columns import HEADER, neutral, numbers, rows_of, times

BOM: Final = "\ufeff".encode()
"""Without it Excel reads UTF-8 as the system's own encoding, and Chinese names as nonsense."""


def csv_header(*, bom: bool) -> bytes:
    """Return the first line."""
    return (BOM if bom else b"") + (",".join(HEADER) + "\r\n").encode()


def csv_lines(piece: Piece, zone: tzinfo) -> bytes:
    """Return a piece as lines."""
    samples, words = rows_of(piece, zone)
    if not len(samples):
        return b""
    tag, name, unit = (neutral(text) for text in (piece.tag.id, piece.tag.name_zh, piece.tag.unit))
    code = samples.code.tolist()
    lines = StringIO(newline="")
    csv.writer(lines, lineterminator="\r\n").writerows(zip(
        times(samples.source_ms, zone), samples.source_ms.tolist(), repeat(tag), repeat(name),
        numbers(samples.value, neutral), repeat(unit), words.tolist(), code,
        numbers(samples.raw, neutral), ["true" if late else "false" for late in samples.late.tolist()],
    ))  # fmt: skip
    return lines.getvalue().encode("utf-8", "replace")


def csv_stream(pieces: Iterable[Piece], zone: tzinfo, *, bom: bool) -> Iterator[bytes]:
    """Return the whole file, piece by piece; pieces without rows are empty bytes."""
    yield csv_header(bom=bom)
    for piece in pieces:
        yield csv_lines(piece, zone)
