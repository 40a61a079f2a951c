"""Report by exception: what is sent, row by row, and the promises that hold for any history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.report import ReportFilter, ReportRules
from wire import Quality, Reason, quality_code

GOOD = quality_code(Quality.GOOD)
COMM = quality_code(Quality.BAD, Reason.COMM)
RANGE = quality_code(Quality.UNCERTAIN, Reason.RANGE)
START_MS = 1_700_000_000_000
SILENCE_MS, PERIOD_MS = 10_000, 1_000


def filter_of(*, limited=False, deadband=0.0, points=1):
    return ReportFilter(
        ReportRules(
            np.full(points, limited), np.full(points, deadband), np.full(points, SILENCE_MS, np.int64), PERIOD_MS
        )
    )


def sent(report, samples):
    """Which of (at_ms, value, code) are sent, for one point; the value's own pattern stands for the register."""
    picked = []
    for at_ms, value, code in samples:
        value = np.nan if code < 64 else value
        bits = np.array([value]).view(np.uint64)
        source_ms = np.array([START_MS + at_ms])
        mask = report.pick(slice(None), bits, np.array([value]), np.array([code], np.uint8), source_ms)
        picked.append(bool(mask[0]))
    return picked


@pytest.mark.parametrize(
    ("limited", "deadband", "samples", "expected"),
    [
        pytest.param(False, 0.0, [(0, 5.0, GOOD)], [True], id="the first sample is always sent"),
        pytest.param(False, 0.0, [(0, 0.0, COMM)], [True], id="also when it is BAD"),
        pytest.param(False, 1.0, [(0, 5.0, GOOD), (1000, 6.0, GOOD)], [True, False], id="deadband is inclusive"),
        pytest.param(False, 1.0, [(0, 5.0, GOOD), (1000, 6.1, GOOD)], [True, True], id="moved by more"),
        pytest.param(
            False, 1.0, [(0, 5.0, GOOD), (1000, 5.9, GOOD), (2000, 6.8, GOOD)], [True, False, True],
            id="a creeping value is measured from what was sent",
        ),
        pytest.param(True, 1.0, [(0, 5.0, GOOD), (1000, 5.001, GOOD)], [True, True], id="a limit knows no deadband"),
        pytest.param(True, 0.0, [(0, 5.0, GOOD), (1000, 5.0, GOOD)], [True, False], id="no change is not sent"),
        pytest.param(False, 9.0, [(0, 5.0, GOOD), (1000, 5.0, RANGE)], [True, True], id="quality change to UNCERTAIN"),
        pytest.param(False, 9.0, [(0, 5.0, GOOD), (1000, 0.0, COMM)], [True, True], id="quality change to BAD"),
        pytest.param(False, 9.0, [(0, 5.0, COMM), (1000, 5.0, GOOD)], [True, True], id="quality change to GOOD"),
        pytest.param(True, 0.0, [(0, 5.0, COMM), (1000, 6.0, COMM)], [True, False], id="BAD for the same reason"),
        pytest.param(False, 0.0, [(0, 5.0, GOOD), (9000, 5.0, GOOD), (10000, 5.0, GOOD)], [True, False, True],
                     id="longest silence"),
        pytest.param(False, 0.0, [(0, 5.0, GOOD), (9600, 5.0, GOOD)], [True, True], id="rather early than late"),
        pytest.param(False, 0.0, [(0, 5.0, GOOD), (-3_600_000, 5.0, GOOD)], [True, True], id="clock set back"),
        pytest.param(False, 0.0, [(0, 5.0, COMM), (10000, 5.0, COMM)], [True, True], id="BAD is not silent either"),
    ],
)  # fmt: skip
@pytest.mark.spec("tck-id-principles-rbe-recommended")
@pytest.mark.spec("tck-id-topics-ddata-payload")
def test_what_is_sent(limited, deadband, samples, expected):
    assert sent(filter_of(limited=limited, deadband=deadband), samples) == expected


def test_register_content_behind_a_bad_value_is_not_news():
    report, nan = filter_of(limited=True), np.array([np.nan])
    code = np.array([quality_code(Quality.BAD, Reason.NOT_A_NUMBER)], np.uint8)
    picked = [
        bool(report.pick(slice(None), np.array([bits], np.uint64), nan, code, np.array([START_MS + at_ms]))[0])
        for at_ms, bits in ((0, 0x7FC00000), (1000, 0x7FC00001))
    ]
    assert picked == [True, False]


histories = st.lists(
    st.tuples(
        st.integers(100, 3000),
        st.sampled_from([0.0, 1.0, 1.5, 2.0, 100.0]),
        st.sampled_from([GOOD, COMM, RANGE]),
    ),
    min_size=1,
    max_size=40,
)


@given(history=histories, limited=st.booleans(), deadband=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_receiver_never_believes_anything_that_is_not_so(history, limited, deadband):
    at_ms, believed, heard_ms = 0, None, None
    report = filter_of(limited=limited, deadband=deadband)
    for step_ms, value, code in history:
        at_ms += step_ms
        if sent(report, [(at_ms, value, code)])[0]:
            believed, heard_ms = (value, code), at_ms
        assert believed is not None
        assert believed[1] == code
        if code != COMM:
            assert abs(believed[0] - value) <= (0.0 if limited else deadband)
        assert at_ms - heard_ms < SILENCE_MS


@given(history=histories, split=st.lists(st.booleans(), min_size=40, max_size=40))
def test_points_do_not_disturb_each_other(history, split):
    together, alone = filter_of(points=2), filter_of()
    at_ms = 0
    for (step_ms, value, code), both in zip(history, split, strict=False):
        at_ms += step_ms
        value = np.nan if code == COMM else value
        bits = np.array([value, 7.0]).view(np.uint64)
        columns = (bits, np.array([value, 7.0]), np.array([code, GOOD], np.uint8), np.full(2, START_MS + at_ms))
        rows = slice(None) if both else np.array([0])
        mask = together.pick(rows, *(column[rows] for column in columns))
        assert bool(mask[0]) == sent(alone, [(at_ms, value, code)])[0]
