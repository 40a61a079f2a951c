"""How engine state is written down: one JSON header, then the columns as they lie in memory.

No pickle and no object arrays: reading a dump can never run anything. There is no checksum in it; whoever
stores it adds one.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerting.errors import CorruptDumpError

_MAGIC = b"HAZARDGATE-STATE-2\n"
_LENGTH_BYTES = 8
_DTYPES = frozenset({"|b1", "|i1", "|u1", "<i4", "<i8", "<f8"})


def pack(kind: str, header: dict[str, Any], columns: dict[str, NDArray[Any]]) -> bytes:
    """Return header and one-dimensional columns as bytes; equal input gives equal bytes."""
    listed, bodies = [], []
    for name, values in columns.items():
        body = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
        listed.append([name, body.dtype.str, len(body)])
        bodies.append(body.tobytes())
    text = json.dumps({"kind": kind, "header": header, "columns": listed},
                      sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return b"".join([_MAGIC, len(text).to_bytes(_LENGTH_BYTES, "little"), text, *bodies])


def unpack(kind: str, dump: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what `pack` was given; the columns are read-only views into `dump`.

    Raises:
        CorruptDumpError: another kind of file, a cut one, or one that contradicts itself.
    """
    start = len(_MAGIC) + _LENGTH_BYTES
    if not dump.startswith(_MAGIC) or len(dump) < start:
        raise CorruptDumpError("not a state dump of this version")
    place = start + int.from_bytes(dump[len(_MAGIC):start], "little")
    try:
        head = json.loads(dump[start:place])
        found, header, listed = head["kind"], head["header"], head["columns"]
        columns = {}
        for name, dtype, count in listed:
            if dtype not in _DTYPES or not isinstance(count, int) or count < 0:
                raise CorruptDumpError(f"column {name!a} has no type of ours")
            columns[str(name)] = np.frombuffer(dump, dtype, count, place) if count else np.empty(0, dtype)
            place += count * np.dtype(dtype).itemsize
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CorruptDumpError(f"damaged state dump: {error}") from error
    if place != len(dump):
        raise CorruptDumpError(f"state dump of {len(dump)} bytes, expected {place}")
    if found != kind:
        raise CorruptDumpError(f"a dump of {found!a}, expected one of {kind!a}")
    return header, columns
