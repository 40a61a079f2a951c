"""Samples as line protocol for peers: the same rows as ours, value and quality, the value left out where it is BAD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from gateway.historian.samples import Samples

MEASUREMENT: Final = "samples"


def lines(samples: Samples, rows: int) -> Iterator[tuple[bytes, int]]:
    """Yield bodies of at most `rows` lines in the order given, and how many lines each has. Times are in ms."""
    heads = np.array([f"{MEASUREMENT},id={name} " for name in samples.names], object)
    for begin in range(0, len(samples), rows):
        part = slice(begin, begin + rows)
        value = samples.value[part]
        columns = heads[samples.tag[part]], value.tolist(), samples.code[part].tolist(), samples.source_ms[part].tolist()
        text = [f"{head}value={shown!r},quality={code}i {at}" for head, shown, code, at in zip(*columns, strict=True)]
        for row in np.flatnonzero(np.isnan(value)).tolist():
            text[row] = f"{columns[0][row]}quality={columns[2][row]}i {columns[3][row]}"
        yield "\n".join(text).encode(), len(text)
