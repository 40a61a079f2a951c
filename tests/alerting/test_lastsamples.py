"""The last sample of every tag, against writing each sample down at once, whenever somebody asks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerting import FrameKey, Observed, lastsamples
from alerting.lastsamples import LastSamples
from alerting.phases import CODE_STALE, CODE_UNHEARD, GOOD_FROM

TAGS = 5
BAD = 4
# (tag, BAD or not) of each sample, in frames, in batches; an int is a tag that falls silent, None is somebody who asks.
FRAME = st.lists(st.tuples(st.integers(0, TAGS - 1), st.booleans()), min_size=1, max_size=6)
BATCH = st.lists(FRAME, min_size=1, max_size=4)


class Model:
    """Everything at once, tag by tag."""

    def __init__(self) -> None:
        self.rows = [(math.nan, CODE_UNHEARD, 0, FrameKey(0, 0), 7)] * TAGS

    def hold_against(self, last: LastSamples) -> None:
        """Fail where the two differ."""
        columns = last.columns()
        for tag, (value, code, source_ms, key, seen_ms) in enumerate(self.rows):
            assert (int(last.code[tag]), int(last.source_ms[tag])) == (code, source_ms)
            assert (last.key(tag), last.seen_ms(tag), int(last.seen_engine_ms()[tag])) == (key, seen_ms, seen_ms)
            assert float(last.value[tag]) == value or (math.isnan(value) and np.isnan(last.value[tag]))
            assert (columns["last_stream"][tag], columns["last_sequence"][tag]) == key


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.one_of(BATCH, st.integers(0, TAGS - 1), st.none()), max_size=14), st.integers(1, 8), st.integers(1, 9),
       st.integers(2, 5))  # fmt: skip
def test_the_last_sample_of_a_tag_stays_however_long_it_waits(
    monkeypatch: pytest.MonkeyPatch, facts: list[list[list[tuple[int, bool]]] | int | None], piece: int, waiting: int, batches: int
) -> None:
    for name, number in {
        "PIECE_SAMPLES": piece, "WAITING_SAMPLES_MIN": waiting, "WAITING_PER_TAG": 0, "WAITING_BATCHES_MAX": batches,
    }.items():  # fmt: skip
        monkeypatch.setattr(lastsamples, name, number)
    last, model, number = LastSamples(TAGS, 7), Model(), 0
    for engine_ms, fact in enumerate(facts, 100):
        if fact is None:
            model.hold_against(last)
        elif isinstance(fact, int):
            last.silence(fact)
            model.rows[fact] = (math.nan, CODE_STALE, *model.rows[fact][2:])
        else:
            keys = tuple(FrameKey(3, 1000 * engine_ms + at) for at in range(len(fact)))
            rows = []
            for at, frame in enumerate(fact):
                for tag, bad in frame:
                    number += 1
                    rows.append((tag, float(number), BAD if bad else GOOD_FROM, number, at))
                    told = math.nan if bad else float(number)
                    model.rows[tag] = (told, BAD if bad else GOOD_FROM, number, keys[at], engine_ms)
            tag_, value, code, source_ms, frame_ = (np.array(column) for column in zip(*rows, strict=True))
            observed = Observed(tag_.astype(np.int32), value, code.astype(np.uint8), source_ms, frame_.astype(np.int32), keys)
            last.note(engine_ms, observed, observed.value, observed.code)
            assert len(last._waiting) < batches + waiting  # a large one waits in pieces
            assert last._waiting_samples == sum(len(told_.tag) for told_ in last._waiting) < max(waiting, 2)
    model.hold_against(last)


def test_what_waits_is_thinned_and_not_written_when_newer_samples_are_known() -> None:
    last = LastSamples(2, 0)
    scan = 1_000
    for number in range(200):
        observed = Observed(np.tile(np.arange(2, dtype=np.int32), scan // 2), np.full(scan, float(number)),
                            np.full(scan, GOOD_FROM, np.uint8), np.full(scan, number), np.zeros(scan, np.int32),
                            (FrameKey(1, number),))  # fmt: skip
        last.note(number, observed, observed.value, observed.code)
        assert last._waiting_samples < lastsamples.WAITING_SAMPLES_MIN
    assert last._value.tolist() != [199.0, 199.0]  # not yet asked
    assert (last.value.tolist(), last.key(1), last.seen_ms(0)) == ([199.0, 199.0], FrameKey(1, 199), 199)
