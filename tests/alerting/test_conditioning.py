"""What a sample must be before it meets a limit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting import condition
from tests.alerting.plant import COMM, GOOD, RANGE
from wire import Quality, Reason, SampleBatch, quality_code, quality_of

LOW, HIGH = np.array([0.0, -math.inf]), np.array([100.0, math.inf])
NOT_A_NUMBER = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)


def conditioned(value: float, code: int, tag: int = 0) -> tuple[float, int, float]:
    """Condition one sample."""
    batch = SampleBatch(np.array([tag], np.int32), np.array([value]), np.array([code], np.uint8), np.zeros(1, np.int64))
    after, codes, raw = condition(batch, LOW, HIGH)
    return float(after[0]), int(codes[0]), float(raw[0])


@pytest.mark.parametrize(("value", "code", "expected"), [
    pytest.param(50.0, GOOD, (50.0, GOOD, math.nan), id="a good value passes"),
    pytest.param(100.0, GOOD, (100.0, GOOD, math.nan), id="the end of the range is inside it"),
    pytest.param(100.1, GOOD, (100.0, RANGE, 100.1), id="above the range: clamped, uncertain, raw kept",
                 marks=pytest.mark.fault("F03")),
    pytest.param(-0.1, GOOD, (0.0, RANGE, -0.1), id="below the range, too", marks=pytest.mark.fault("F03")),
    pytest.param(65535.0, GOOD, (100.0, RANGE, 65535.0), id="-1 read as unsigned",
                 marks=pytest.mark.fault("F07")),
    pytest.param(101.0, RANGE, (100.0, RANGE, 101.0), id="marked by the edge already"),
    pytest.param(50.0, RANGE, (50.0, RANGE, math.nan), id="uncertain inside the range stays so"),
    pytest.param(math.nan, GOOD, (math.nan, NOT_A_NUMBER, math.nan), id="NaN is bad whatever it claims",
                 marks=pytest.mark.fault("F01")),
    pytest.param(math.inf, GOOD, (math.nan, NOT_A_NUMBER, math.nan), id="infinity is no value above a limit",
                 marks=pytest.mark.fault("F02")),
    pytest.param(-math.inf, RANGE, (math.nan, NOT_A_NUMBER, math.nan), id="nor one below",
                 marks=pytest.mark.fault("F02")),
    pytest.param(5e-324, GOOD, (5e-324, GOOD, math.nan), id="a denormal is a number",
                 marks=pytest.mark.fault("F02")),
    pytest.param(50.0, COMM, (math.nan, COMM, math.nan), id="bad has no value and keeps its reason"),
    pytest.param(50.0, 0x80, (math.nan, quality_code(Quality.BAD, Reason.UNKNOWN), math.nan),
                 id="a quality that does not exist is bad"),
])
def test_one_sample(value: float, code: int, expected: tuple[float, int, float]) -> None:
    assert conditioned(value, code) == pytest.approx(expected, nan_ok=True, abs=0)


def test_a_tag_without_a_range_is_never_out_of_it() -> None:
    assert conditioned(1e300, GOOD, tag=1)[1] == GOOD


@given(st.floats(), st.sampled_from([GOOD, RANGE, COMM]))
def test_afterwards_a_value_is_nan_exactly_where_it_is_bad_and_never_more_trusted(value: float, code: int) -> None:
    after, now, _ = conditioned(value, code)
    assert math.isnan(after) == (quality_of(now) == Quality.BAD)
    assert math.isnan(after) or 0.0 <= after <= 100.0
    assert quality_of(now) <= quality_of(code)


def test_the_batch_itself_is_left_alone() -> None:
    value = np.array([500.0, math.inf])
    batch = SampleBatch(np.zeros(2, np.int32), value, np.full(2, GOOD, np.uint8), np.zeros(2, np.int64))
    condition(batch, LOW, HIGH)
    assert value.tolist() == [500.0, math.inf]
    assert batch.code.tolist() == [GOOD, GOOD]
