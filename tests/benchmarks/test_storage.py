"""B10's plant is what it says, its lines are what the rows are, its sizes are shared out fairly, and each goal is judged."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import b10_plant as plant_module
from benchmarks.b10_build import Built, build_days, build_hours, day_stem, of_other_sources, sources
from benchmarks.b10_lines import lines
from benchmarks.b10_ours import Ours, Size, sizes
from benchmarks.b10_plant import DEVICES, FIRST_DAY_MS, FRAMES_PER_DAY, GOOD, Plant, information_bytes, is_counts
from benchmarks.b10_storage import MANY, ONE, Beside, Found, judge, questions_of, some
from benchmarks.harness import BenchmarkError
from gateway.historian.samples import Samples, concatenated
from wire import Quality, quality_of

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant(seed=5)


def test_a_day_is_the_same_however_it_is_asked_for_and_another_seeds_is_not(plant: Plant) -> None:
    day = plant.device(3, 2).by_tag()
    again, other = Plant(seed=5).device(3, 2).by_tag(), Plant(seed=6).device(3, 2).by_tag()
    assert day.digest() == again.digest() != other.digest()


@pytest.mark.parametrize("number", [1, DEVICES - 1])
def test_a_day_has_the_stamps_and_troubles_of_a_real_one(plant: Plant, number: int) -> None:
    days = [plant.device(number, day) for day in range(3)]
    frames = sum(len(day.source_ms) for day in days)
    assert 0.97 < frames / (3 * FRAMES_PER_DAY) < 1, "a few gaps"
    assert 0 < sum(day.late.sum() for day in days) < 0.05 * frames
    for day in days:
        steps = np.diff(day.source_ms)
        assert (steps > 0).all()
        assert 1 <= float(np.median(np.abs(steps - 1_000))) <= 3, "some ms of jitter"
        assert (np.diff(day.sequence) > 0).all()
        samples = day.by_tag()
        assert (np.isnan(samples.value) == (quality_of(samples.code) == Quality.BAD)).all()
        assert not np.isnan(samples.raw[quality_of(samples.code) == Quality.UNCERTAIN]).any()
    bad = np.mean([np.isnan(day.value).mean() for day in days])
    assert 0 < bad < 0.02


def test_counts_stand_on_the_steps_of_a_converter_and_float32_on_their_own(plant: Plant) -> None:
    for number in (0, DEVICES - 1):
        day = plant.device(number, 0)
        for row, code in zip(day.value[:10], day.code[:10], strict=True):
            values = np.unique(row[code == GOOD])
            if is_counts(number):
                step = np.median(np.diff(values))
                assert np.abs((values - values[0]) / step - np.rint((values - values[0]) / step)).max() < 1e-3
                assert len(values) < 2**14
            else:
                assert (values.astype(np.float32) == values).all()
                assert len(values) > 0.9 * FRAMES_PER_DAY


def test_pieces_hold_what_the_days_hold_late_ones_behind(plant: Plant) -> None:
    pieces = list(plant.pieces(1, 600, range(2)))
    whole = [plant.device(number, 0).between(FIRST_DAY_MS, FIRST_DAY_MS + HOUR_MS).by_tag() for number in range(2)]
    assert concatenated(pieces).digest() == concatenated(whole).digest()
    for piece in pieces:
        assert not (np.diff(piece.late.astype(int)) < 0).any()
        assert (np.diff(piece.source_ms[~piece.late]) >= 0).all()


def test_the_noise_holds_less_than_its_bits(plant: Plant) -> None:
    assert 0.2 < information_bytes(plant, "counts") < 0.5
    assert 1.5 < information_bytes(plant, "float32") < 3.0


def test_lines_say_value_and_quality_and_leave_a_value_out_that_is_not_there() -> None:
    three = Samples(
        ("A.B", "C.D"), np.array([0, 1, 0], np.int32), np.array([5, 6, 7]), np.array([0.1, np.nan, 2.0]),
        np.array([192, 2, 192], np.uint8), np.full(3, np.nan), np.zeros(3, np.bool_), np.zeros(3, np.int64), np.zeros(3, np.int64),
    )  # fmt: skip
    assert list(lines(three, 2)) == [
        (b"samples,id=A.B value=0.1,quality=192i 5\nsamples,id=C.D quality=2i 6", 2),
        (b"samples,id=A.B value=2.0,quality=192i 7", 1),
    ]


def small_day(names: tuple[str, ...], counts: bool, rows: int) -> Samples:
    draw = np.random.default_rng(1)
    value = draw.integers(0, 20, 2 * rows).astype(np.float64) * 0.5 if counts else draw.standard_normal(2 * rows)
    zero = np.zeros(2 * rows, np.int64)
    return Samples(
        names, np.repeat(np.arange(2, dtype=np.int32), rows), np.tile(FIRST_DAY_MS + np.arange(rows) * 1_000, 2), value,
        np.full(2 * rows, 192, np.uint8), np.full(2 * rows, np.nan), zero.astype(np.bool_), zero, zero,
    )  # fmt: skip


def test_what_a_kind_weighs_adds_up_to_the_files_and_counts_weigh_less(tmp_path: Path) -> None:
    from gateway.historian.segments.files import connect
    from gateway.historian.segments.names import Stem
    from gateway.historian.segments.seal import seal, sorted_samples

    counts = small_day(("D00.A", "D00.B"), True, 50_000)
    floats = small_day(("D19.A", "D19.B"), False, 50_000)
    db = connect(tmp_path)
    seal(db, tmp_path, Stem("b10", 1, 1, "seal"), "", sorted_samples(concatenated([counts, floats])), FIRST_DAY_MS)
    db.close()
    found = sizes(tmp_path)
    assert {kind: size.rows for kind, size in found.items()} == {"counts": 100_000, "float32": 100_000}
    files = sum(path.stat().st_size for top in ("samples", "rollups", "manifests") for path in (tmp_path / top).rglob("*.*"))
    assert sum(size.samples + size.rollups + size.manifests for size in found.values()) == pytest.approx(files)
    assert found["counts"].a_sample < 0.5 * found["float32"].a_sample


def test_hours_are_built_packed_and_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant_module.Plant, "pieces", lambda self, hours, piece_s: _pieces(hours))
    built = build_hours(tmp_path / "ours", 1, 1)
    assert built.rows == 4 * 3_600
    assert [path.name for path in (tmp_path / "ours" / "manifests").iterdir()] == [
        "pack-b10-0000000000000001-0000000000000006.json"
    ]
    ours = Ours(tmp_path / "ours")
    try:
        assert ours.raw(["D00.A", "D19.B"], FIRST_DAY_MS, FIRST_DAY_MS + HOUR_MS) == 7_200
        assert ours.raw(["D00.A"], FIRST_DAY_MS, FIRST_DAY_MS + HOUR_MS) == 3_600
        assert ours.windows(["D00.A"], FIRST_DAY_MS, FIRST_DAY_MS + HOUR_MS, 3_600) == 1_000
        assert ours.windows(["D00.A", "D19.B"], FIRST_DAY_MS, FIRST_DAY_MS + HOUR_MS, 300_000) == 24
    finally:
        ours.close()


def _pieces(hours: int) -> list[Samples]:
    whole = concatenated([
        small_day(("D00.A", "D00.B"), True, hours * 3_600), small_day(("D19.A", "D19.B"), False, hours * 3_600),
    ])  # fmt: skip
    at = (whole.source_ms - FIRST_DAY_MS) // 600_000
    return [whole.take(at == number) for number in range(hours * 6)]


def test_a_day_that_other_code_built_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "built-by").mkdir()
    (tmp_path / "built-by" / "000").write_text(sources(), "ascii")
    (tmp_path / "built-by" / "001").write_text("before", "ascii")
    assert of_other_sources(tmp_path, 2) == [1]
    stale = found()
    stale.stale_days = 1
    assert not judge(stale).held["days"]
    assert "--fresh" in judge(stale).text()


def test_days_that_are_there_are_not_built_again_and_too_many_are_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "manifests" / day_stem(0).manifest_name
    manifest.parent.mkdir()
    manifest.touch()
    said: list[str] = []
    assert build_days(tmp_path, 1, 1, said.append) == Built(0, 0.0, 0.0)
    assert not said
    with pytest.raises(BenchmarkError, match="days"):
        build_days(tmp_path, 10_000, 1, said.append)


def test_a_dashboard_has_fifty_tags_of_both_kinds_and_its_windows_are_of_five_minutes(plant: Plant) -> None:
    import random

    tags = some(plant.names, random.Random(1))
    assert len(set(tags)) == 50
    assert sum(is_counts(int(tag[1:3])) for tag in tags) == 25

    class Told:
        def __init__(self) -> None:
            self.asked: list[tuple[int, int, int]] = []

        def windows(self, tags: list[str], from_ms: int, to_ms: int, width_ms: int) -> int:
            self.asked.append((len(tags), to_ms - from_ms, width_ms))
            return 1

        def raw(self, tags: list[str], from_ms: int, to_ms: int) -> int:
            self.asked.append((len(tags), to_ms - from_ms, 0))
            return 1

    told = Told()
    for ask in questions_of(30, plant.names).values():
        ask(told, random.Random(1))  # type: ignore[arg-type]
    day = 24 * HOUR_MS
    assert told.asked == [(1, day, 86_400), (50, HOUR_MS, 0), (50, day, 300_000), (50, 30 * day, 2_700_000)]


# -- the verdict --


def found(
    counts: float = 2.1, float32: float = 3.2, one_ms: float = 40.0, many_ms: float = 300.0, days: int = 30
) -> Found:
    size = {kind: Size(1_000, 1_000 * (bytes_ - 0.2), 150.0, 50.0) for kind, bytes_ in (("counts", counts), ("float32", float32))}
    times = {ONE: [one_ms] * 20, **{name: [many_ms] * 20 for name in MANY}}
    asked = {"1 tag": [1.0, 2.0, 3.0]}
    return Found(
        6, days, Built(0, 0.0, 0.0), size,
        [Beside("ours", "synced", 2.6, 3.3, 1e6, asked), Beside("InfluxDB 1.6", "its log", 7.8, 5.6, 2e5, asked)],
        {name: [value * 2 for value in taken] for name, taken in times.items()}, times, [], {"counts": 0.3, "float32": 2.1},
    )  # fmt: skip


def test_a_run_inside_all_limits_holds_and_says_what_was_found() -> None:
    verdict = judge(found())
    assert verdict.holds
    assert verdict.figures["counts_bytes"] == pytest.approx(2.1)
    assert verdict.ratios["counts_bytes_to_InfluxDB 1.6"] == 0.33
    text = verdict.text()
    for part in ("InfluxDB 1.6, 6 h", "ours, 30 days", "not re-read", "cold p50 80.0", ONE, *MANY):
        assert part in text


@pytest.mark.parametrize(
    ("made", "missed"),
    [
        pytest.param(lambda: found(counts=2.51), "counts_bytes", id="counts too heavy"),
        pytest.param(lambda: found(float32=3.31), "float32_bytes", id="float32 too heavy"),
        pytest.param(lambda: found(one_ms=101.0), "one_tag_p95_ms", id="one tag too slow"),
        pytest.param(lambda: found(many_ms=501.0), "dashboard_p95_ms", id="a dashboard too slow"),
        pytest.param(lambda: found(days=29), "days", id="a shorter run decides nothing"),
    ],
)
def test_each_limit_is_judged_by_itself(made: Callable[[], Found], missed: str) -> None:
    assert [name for name, held in judge(made()).held.items() if not held] == [missed]


def test_one_slow_dashboard_of_three_is_a_miss() -> None:
    slow = found()
    slow.warm_ms[MANY[2]] = [10.0] * 18 + [600.0] * 2
    assert judge(slow).held["dashboard_p95_ms"] is False


def test_the_command_line_knows_the_options() -> None:
    from benchmarks.__main__ import arguments

    options = arguments().parse_args(["B10", "--days", "2", "--peer-hours", "3", "--fresh"])
    assert isinstance(options, argparse.Namespace)
    assert (options.days, options.peer_hours, options.fresh) == (2, 3, True)
    with pytest.raises(SystemExit):
        arguments().parse_args(["B10", "--peer-hours", "25"])
