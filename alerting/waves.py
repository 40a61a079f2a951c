"""The samples of a batch that may change something, in waves.

Of a tag that has a sample outside its quiet band, that one goes through the exact rules, and then the first after it
that is outside the band as it is by then. The samples of a wave are of different tags, so they go through together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from alerting.bulk import Crossed, Samples, run_bulk
from alerting.step import Step

if TYPE_CHECKING:
    from alerting.evaluator import Evaluator

BULK_MIN = 64  # below so many samples the one-by-one rules are quicker
WAVE_SHARE_MIN = 1 / 32  # also when a wave is a smaller share of the samples that have to be looked at for it
NO_SAMPLE = int(np.iinfo(np.int32).max)


class Waves:
    """Brings samples to the exact rules of an evaluator, which owns all state."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._first = np.full(evaluator.limits.tags, NO_SAMPLE, np.int32)

    def run(self, engine_ms: int, samples: Samples, rough: NDArray[np.intp]) -> list[Step]:
        """Apply the exact rules to the samples of a batch at the places `rough`, and to what follows from them."""
        placed: list[tuple[int, Step]] = []
        first, tag = self._first, samples.tag
        first[tag[rough][::-1]] = rough[::-1]  # written backwards, so that the first of each tag stays
        left = np.flatnonzero(first.take(tag) <= np.arange(len(tag), dtype=np.int32))
        first[tag[rough]] = NO_SAMPLE
        while len(left) >= BULK_MIN:
            # A wave is the first sample outside its band of each tag: those before it can change nothing.
            tags = tag[left]
            outside, _ = self._evaluator.bands.outside(tags, samples.value[left], samples.code[left])
            if outside is None:
                left = left[:0]
                break
            rough = left[outside]
            first[tag[rough][::-1]] = rough[::-1]
            start = first[tags]
            first[tags] = NO_SAMPLE
            wave = left[start == left]
            if len(wave) < WAVE_SHARE_MIN * len(left):
                break
            placed += self._wave(engine_ms, samples, wave)
            left = left[start < left]
        placed += self._one_by_one(engine_ms, samples, left)
        # All of them back into the order of the samples; several steps of one sample stay in theirs.
        placed.sort(key=lambda entry: entry[0])
        return [step for _, step in placed]

    def _wave(self, engine_ms: int, samples: Samples, wave: NDArray[np.intp]) -> list[tuple[int, Step]]:
        """Apply the samples at these places, no two of one tag."""
        mine = samples.of(wave)
        done, crossed = run_bulk(self._evaluator, engine_ms, mine)
        steps = self._steps(mine, crossed) if len(crossed.row) else []
        placed = list(zip(wave[crossed.sample].tolist(), steps, strict=True))
        return placed + self._one_by_one(engine_ms, samples, wave[~done])

    def _one_by_one(self, engine_ms: int, samples: Samples, places: NDArray[np.intp]) -> list[tuple[int, Step]]:
        """Apply the samples at these places in order; returns steps with the place of their sample."""
        placed: list[tuple[int, Step]] = []
        mine = samples.of(places)
        tags = mine.tag.tolist()
        columns = (places.tolist(), tags, mine.value.tolist(), mine.code.tolist(), mine.source_ms.tolist(),
                   mine.frame.tolist())
        for place, tag, value, code, source_ms, frame in zip(*columns, strict=True):
            steps: list[Step] = []
            self._evaluator.sample(tag, value, code, source_ms, mine.frames[frame], engine_ms, steps)
            placed += [(place, step) for step in steps]
        for tag in dict.fromkeys(tags):
            self._evaluator.settle(tag)
        return placed

    def _steps(self, samples: Samples, crossed: Crossed) -> list[Step]:
        """Return the steps of rows that crossed, no row twice; as `Evaluator._step` makes them one by one."""
        now = self._evaluator
        row, mine = crossed.row, samples.of(crossed.sample)
        keys = [samples.frames[frame] for frame in mine.frame.tolist()]
        streams, sequences = [key.stream for key in keys], [key.sequence for key in keys]
        stream, sequence = np.array(streams, np.int64), np.array(sequences, np.int64)
        again = (now.step_stream[row] == stream) & (now.step_sequence[row] == sequence)
        ordinal = np.where(again, now.step_count[row], 0)
        now.step_stream[row], now.step_sequence[row], now.step_count[row] = stream, sequence, ordinal + 1
        return list(map(Step, row.tolist(), mine.tag.tolist(), crossed.raised.tolist(), mine.value.tolist(),
                        mine.code.tolist(), mine.source_ms.tolist(), streams, sequences, ordinal.tolist()))
