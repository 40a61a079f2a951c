"""What the evaluator says: a row was raised or has returned."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """A row was raised or has returned.

    `row` counts limits first, then one fault row per tag. `ordinal` is None when no sample did it; `cause` then
    tells apart what neither the row nor the time does.
    """

    row: int
    tag: int
    raised: bool
    value: float
    code: int
    at_ms: int
    stream: int
    sequence: int
    ordinal: int | None
    cause: str = ""
