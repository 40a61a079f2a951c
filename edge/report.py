"""Report by exception: which samples of a poll are worth sending, as a pure function of what was sent.

A tag with a limit is sent on every raw change, because a deadband there would be a second, hidden limit.
A change of quality is always sent, and so is the first sample. Nothing is silent for longer than its
longest silence, so that a receiver can tell a steady value from a dead line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire import Quality, quality_of


@dataclass(frozen=True, slots=True, eq=False)
class ReportRules:
    """Per point of one device, one row each."""

    every_change: NDArray[np.bool_]
    """bool[n]: send on any change of the register pattern (tags with a limit)."""
    deadband: NDArray[np.float64]
    """float64[n]: otherwise send when the value has moved by more than this, in the tag's unit."""
    longest_silence_ms: NDArray[np.int64]
    """int64[n]"""
    period_ms: int
    """Poll period: a sample is sent rather early than late by rounding of at most half of it."""


class ReportFilter:
    """Remembers what was sent last of every point of one device."""

    def __init__(self, rules: ReportRules) -> None:
        self._rules = rules
        count = len(rules.every_change)
        self._silence_ms = np.maximum(rules.longest_silence_ms - rules.period_ms // 2, 0)
        self._known = np.zeros(count, np.bool_)
        self._all_known = False
        self._bits = np.zeros(count, np.uint64)
        self._value = np.full(count, np.nan)
        self._code = np.zeros(count, np.uint8)
        self._sent_ms = np.zeros(count, np.int64)

    def pick(
        self,
        rows: NDArray[np.intp] | slice,
        bits: NDArray[np.uint64],
        value: NDArray[np.float64],
        code: NDArray[np.uint8],
        source_ms: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Return which of these samples to send, and count those as sent.

        Args:
            rows: the points the samples belong to, intp[m] without repeats or a slice.
            bits, value, code, source_ms: the samples, one row per point in `rows`.
        """
        rules = self._rules
        raw_changed = bits != self._bits[rows]
        with np.errstate(invalid="ignore"):
            moved = np.abs(value - self._value[rows]) > rules.deadband[rows]
        changed = np.where(rules.every_change[rows], raw_changed, moved)
        # Between two BAD samples of one reason the register content says nothing.
        changed &= quality_of(code) != Quality.BAD
        elapsed_ms = source_ms - self._sent_ms[rows]
        # A clock that was set back must not silence a tag until it has caught up with itself.
        overdue = (elapsed_ms >= self._silence_ms[rows]) | (elapsed_ms < 0)
        send: NDArray[np.bool_] = changed | overdue | (code != self._code[rows])
        if not self._all_known:
            send |= ~self._known[rows]
            self._known[rows] = True
            self._all_known = bool(self._known.all())
        self._remember(rows, send, bits, value, code, source_ms)
        return send

    def _remember(
        self,
        rows: NDArray[np.intp] | slice,
        send: NDArray[np.bool_],
        bits: NDArray[np.uint64],
        value: NDArray[np.float64],
        code: NDArray[np.uint8],
        source_ms: NDArray[np.int64],
    ) -> None:
        if send.all():  # a poll in which everything moved, as analog values do
            self._bits[rows], self._value[rows], self._code[rows] = bits, value, code
            self._sent_ms[rows] = source_ms
            return
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self._bits)))
        sent = rows[send]
        self._bits[sent] = bits[send]
        self._value[sent] = value[send]
        self._code[sent] = code[send]
        self._sent_ms[sent] = source_ms[send]
