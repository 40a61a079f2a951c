"""Columns that belong together, and nothing else."""

import numpy as np
import pytest

from wire import SampleBatch, ShapeMismatchError


def batch(*rows: tuple[int, float, int, int]) -> SampleBatch:
    tag, value, code, source_ms = zip(*rows, strict=True)
    return SampleBatch(np.array(tag, np.int32), np.array(value, np.float64),
                       np.array(code, np.uint8), np.array(source_ms, np.int64))


def rows_of(samples: SampleBatch) -> list[tuple[int, float, int, int]]:
    return list(zip(samples.tag.tolist(), samples.value.tolist(), samples.code.tolist(),
                    samples.source_ms.tolist(), strict=True))


ROWS = [(3, 1.5, 192, 1000), (1, 2.5, 64, 1001), (3, 3.5, 192, 1002)]


@pytest.mark.parametrize(("selection", "chosen"), [
    pytest.param(np.array([False, True, True]), [1, 2], id="mask"),
    pytest.param(np.array([2, 0]), [2, 0], id="indices keep their own order"),
    pytest.param(slice(0, 1), [0], id="slice"),
    pytest.param(np.array([], np.int64), [], id="nothing"),
])
def test_take(selection, chosen):
    assert rows_of(batch(*ROWS).take(selection)) == [ROWS[row] for row in chosen]


def test_concat_keeps_the_order_of_the_batches_and_of_their_rows():
    joined = SampleBatch.concat([batch(*ROWS), SampleBatch.empty(), batch(ROWS[1])])
    assert rows_of(joined) == [*ROWS, ROWS[1]]
    assert len(joined) == 4


def test_concat_of_nothing_is_empty_and_typed():
    nothing = SampleBatch.concat([])
    assert len(nothing) == 0
    assert nothing.tag.dtype == np.int32
    assert nothing.code.dtype == np.uint8


@pytest.mark.parametrize(("column", "wrong"), [
    pytest.param("value", np.zeros(2), id="too short"),
    pytest.param("code", np.zeros(3, np.int64), id="codes not bytes"),
    pytest.param("source_ms", np.zeros(3), id="stamps as floats"),
    pytest.param("tag", np.zeros((3, 1), np.int32), id="two dimensions"),
])
def test_columns_that_do_not_belong_together_are_refused(column, wrong):
    good = batch(*ROWS)
    columns = {name: getattr(good, name) for name in ("tag", "value", "code", "source_ms")} | {column: wrong}
    with pytest.raises(ShapeMismatchError):
        SampleBatch(**columns)
