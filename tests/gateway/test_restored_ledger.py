"""A gateway whose ledger was restored must not blame its edges for it, and must not hold their levels for that."""

from __future__ import annotations

from gateway.core.books import UNFINISHED_LISTED_MAX, BirthFindings, NodeBook
from gateway.core.machine import Machine
from tests.gateway.field import T0_MS, site
from wire import StreamSpan

KNOWN, FORGOTTEN, LIVE = 101, 102, 103


def ranges(findings: BirthFindings) -> list[tuple[int, int, int]]:
    return [(loss.stream, loss.first, loss.last) for loss in findings.losses]


def test_a_predecessor_nobody_knows_is_our_loss_and_no_restored_edge() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    book.arrive(KNOWN, 1)
    # FORGOTTEN lived, was acknowledged and was forgotten by the edge after the copy of our ledger was made.
    findings = book.born(LIVE, [StreamSpan(LIVE, 1, 0, FORGOTTEN, 40)])
    # What KNOWN held beyond the copy, and streams between the two, are told by no birth: said without an end.
    assert ranges(findings) == [(FORGOTTEN, 1, 40), (KNOWN, 2, 0)]
    assert "unknown now" in findings.losses[0].cause
    assert "end unknown" in findings.losses[1].cause
    assert not findings.restored_disk
    assert book.strangers == []


def test_a_predecessor_that_leads_on_to_what_we_know_tells_where_it_ended() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    book.arrive(KNOWN, 1)
    findings = book.born(LIVE, [StreamSpan(FORGOTTEN, 41, 41, KNOWN, 3), StreamSpan(LIVE, 1, 0, FORGOTTEN, 41)])
    assert {(loss.stream, loss.first, loss.last) for loss in findings.losses} == {(KNOWN, 2, 3), (FORGOTTEN, 1, 40)}


def test_two_restores_of_the_gateway_are_not_two_boxes() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    assert not book.born(LIVE, [StreamSpan(LIVE, 1, 0, FORGOTTEN, 40)]).two_boxes
    assert not book.born(LIVE + 2, [StreamSpan(LIVE + 2, 1, 0, FORGOTTEN + 2, 40)]).two_boxes


def test_an_edge_that_knows_no_predecessor_at_all_is_still_a_stranger() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    assert book.born(LIVE, [StreamSpan(LIVE, 1, 0, 0, 0)]).restored_disk


def test_the_loss_without_an_end_begins_behind_what_the_edge_still_holds_of_the_stream() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    book.arrive(KNOWN, 1)
    findings = book.born(LIVE, [StreamSpan(KNOWN, 5, 9, 0, 0), StreamSpan(LIVE, 1, 0, FORGOTTEN, 40)])
    assert ranges(findings) == [(KNOWN, 2, 4), (FORGOTTEN, 1, 40), (KNOWN, 10, 0)]


def test_a_stream_of_which_the_copy_has_frames_and_no_birth_is_our_loss_and_no_restored_edge() -> None:
    """Only a ledger that had its birth can have acknowledged it, and without that the edge would list it."""
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    book.arrive(FORGOTTEN, 1)
    findings = book.born(LIVE, [StreamSpan(LIVE, 1, 0, FORGOTTEN, 1)])
    assert ranges(findings) == [(KNOWN, 1, 0)]
    assert "end unknown" in findings.losses[0].cause
    assert not findings.restored_disk


def test_a_copy_from_before_the_node_was_known_says_that_more_is_lost_than_has_a_number() -> None:
    (loss,) = NodeBook().born(LIVE, [StreamSpan(LIVE, 1, 0, FORGOTTEN, 40)]).losses
    assert (loss.stream, loss.first, loss.last) == (FORGOTTEN, 1, 40)
    assert "all before it" in loss.cause


def test_what_a_full_list_hid_of_our_loss_is_said_once_the_list_is_short_enough() -> None:
    book = NodeBook()
    book.born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    book.arrive(KNOWN, 1)
    listed = [
        StreamSpan(1_000 + at, 1, 2, 999 + at if at else FORGOTTEN, 2) for at in range(UNFINISHED_LISTED_MAX)
    ]  # fmt: skip
    live = 1_000 + UNFINISHED_LISTED_MAX
    assert book.born(live, [*listed, StreamSpan(live, 1, 0, live - 1, 2)]).losses == ()
    for each in listed[:-1]:
        book.arrive_block(each.stream, 1, 2, ())
    findings = book.born(live, [listed[-1], StreamSpan(live, 1, 3, live - 1, 2)])
    assert (KNOWN, 2, 0) in ranges(findings)
    assert not findings.restored_disk


def test_a_gateway_knows_that_it_was_restored_until_a_list_short_enough_tells_by_how_much() -> None:
    machine = Machine(site())

    def born(live: int, spans: list[StreamSpan]) -> BirthFindings:
        facts = {
            "live": live, "spans": [[s.stream, s.first, s.last, s.predecessor, s.predecessor_last] for s in spans],
            "config_wrong": False, "spool_fault": False, "clock_synced": True, "unmarked_stream": -1,
        }  # fmt: skip
        return machine.born(0, T0_MS, "E1", facts)[0]

    born(KNOWN, [StreamSpan(KNOWN, 1, 0, 0, 0)])
    machine.start(0, 0, 0, restored=True)
    listed = [StreamSpan(1_000 + at, 1, 2, 999 + at if at else 0, 2 if at else 0) for at in range(UNFINISHED_LISTED_MAX)]
    live = 1_001 + UNFINISHED_LISTED_MAX
    assert born(live, [*listed, StreamSpan(live, 1, 0, live - 1, 2)]).losses == ()
    machine = Machine.restore(machine.site, machine.dump())
    findings = born(live + 1, [StreamSpan(live - 1, 1, 2, live - 2, 2), StreamSpan(live + 1, 1, 0, live, 1)])
    assert (KNOWN, 1, 0) in ranges(findings)
    assert not findings.restored_disk
    assert not machine.node("E1").restored
