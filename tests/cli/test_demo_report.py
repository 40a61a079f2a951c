"""The demo's account finds every page that is torn out of the books."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.demo_report import in_words
from tests.cli.books import ENDED_MS, HandMadeBooks


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMadeBooks:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    return HandMadeBooks(tmp_path)


def test_whole_books_miss_nothing(books: HandMadeBooks) -> None:
    report = books.report()
    assert report["missing"] == []
    assert report["samples"] == {"taken": 3, "committed": 3, "acked": 3}
    assert report["alarms"] == {"red": 0, "orange": 0, "yellow": 1, "blue": 0}
    assert report["webhooks_verified"] == 1
    assert report["change_to_webhook_ms"] == {"count": 1, "p50": 20.0, "p99": 20.0}
    assert in_words(report)[-1] == "nothing is missing"


def test_what_the_demo_brings_about_by_stopping_is_in_neither_count(books: HandMadeBooks) -> None:
    """Its own edges go offline when it stops them: alarms after the end, and webhooks about them."""
    before = books.report()
    books.alarm("a2", "H", at_ms=ENDED_MS + 1)
    after = books.report()
    assert (after["alarms"], after["missing"]) == (before["alarms"], [])
    assert after["webhooks_verified"] == before["webhooks_verified"]


def test_a_second_crossing_needs_a_second_alarm(books: HandMadeBooks) -> None:
    books.cross("H", at_ms=20_000, over=False)
    books.cross("H", at_ms=30_000)
    assert books.missing() == ["T101.LEVEL crossed H at least 2 times and raised 1 alarms"]
    books.alarm("a2", "H", at_ms=30_000)
    assert books.missing() == []


def test_an_alarm_without_a_crossing_is_told(books: HandMadeBooks) -> None:
    books.alarm("a2", "HH", at_ms=20_000)
    assert books.missing() == ["T101.LEVEL crossed HH 0 times and raised 1 alarms"]


def test_a_crossing_of_the_last_moment_may_still_be_on_its_way(books: HandMadeBooks) -> None:
    books.cross("HH", at_ms=ENDED_MS - 500)
    assert books.missing() == []


def test_a_journalled_step_needs_a_notice_for_who_wants_it(books: HandMadeBooks) -> None:
    books.db.execute("DELETE FROM outbox")
    (told,) = books.missing()
    assert told.startswith("a journalled step has no notice")
    assert told.endswith("for CITY")


def test_a_notice_needs_a_journalled_step(books: HandMadeBooks) -> None:
    books.db.execute("DELETE FROM transition")
    told = books.missing()
    assert any(line.endswith("has no journalled step") for line in told)
    assert "alarm a1 is not in the journal" in told


def test_a_lost_revision_is_told(books: HandMadeBooks) -> None:
    books.db.execute("UPDATE transition SET revision = 2")
    assert books.missing() == ["the steps of alarm a1 have gaps"]


def test_a_notice_that_never_arrived_is_told(books: HandMadeBooks) -> None:
    books.received.clear()
    (told,) = books.missing()
    assert told.endswith("for CITY never reached the platform")


def test_a_gap_in_a_lane_is_told(books: HandMadeBooks) -> None:
    books.received[0]["sequence"] = 2
    assert books.missing() == ["sequence of CITY yellow has gaps"]


def test_rejected_webhooks_lost_samples_and_writes_are_told(books: HandMadeBooks) -> None:
    books.received.append({"rejected": "signature"})
    books.db.execute("DELETE FROM log")
    books.db.execute("INSERT INTO loss VALUES ('E1', 7, 1, 3, 'dropped')")
    (books.folder / "plant" / "requests.jsonl").write_text('{"function": 6}\n', encoding="utf-8")
    assert books.missing() == [
        "3 samples taken, 0 committed",
        "loss on record: E1 7 1-3 dropped",
        "the platform rejected 1 webhooks",
        "1 write requests reached an instrument; there must be none",
    ]


def test_what_a_killed_edge_had_published_and_not_yet_written_is_not_missing(books: HandMadeBooks) -> None:
    status = books.folder / "edges" / "E1" / "status.json"
    status.write_text('{"samples_taken": 1, "samples_acked": 1}', encoding="utf-8")
    assert books.missing(**{"edge-E1": 1}) == []
    assert books.missing() == ["1 samples taken, 3 committed"]
    status.write_text('{"samples_taken": 3, "samples_acked": 2}', encoding="utf-8")
    assert books.missing() == ["3 samples taken, 2 acknowledged"]


def test_the_account_speaks_chinese(books: HandMadeBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    books.received[0]["sequence"] = 2
    assert in_words(books.report())[-1] == "缺失：CITY yellow 的序号有缺号"
