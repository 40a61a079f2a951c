"""What the gateway may acknowledge, and what it must call lost."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest import mock

from gateway.core import books
from gateway.core.books import (
    STREAMS_KEPT_MAX,
    UNFINISHED_LISTED_MAX,
    BirthFindings,
    Loss,
    NodeBook,
    Verdict,
)
from wire import INTERVALS_MAX, StreamSpan

A, B, C, D = 101, 102, 103, 104


def span(stream: int, first: int, last: int, predecessor: int = 0, predecessor_last: int = 0) -> StreamSpan:
    return StreamSpan(stream, first, last, predecessor, predecessor_last)


def book_with(stream: int, last: int, *, every_ms: int = 100) -> NodeBook:
    """A book whose live stream has frames 1..last, each `every_ms` after the one before."""
    book = NodeBook()
    book.born(stream, [span(stream, 1, 0)])
    for number in range(1, last + 1):
        assert book.arrive(stream, number) is Verdict.CURRENT
        book.time(stream, number, 1_000_000 + number * every_ms)
    return book


def booked(
    book: NodeBook, first: int, last: int, *dropped: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[Loss]]:
    found = book.arrive_block(A, first, last, [(lo, hi, "disk full") for lo, hi in dropped])
    assert found is not None
    return found


def causes(findings: BirthFindings) -> list[tuple[int, int, int]]:
    return [(loss.stream, loss.first, loss.last) for loss in findings.losses]


def test_a_stream_whose_births_were_all_lost_is_not_acknowledged_before_one_tells_where_it_belongs() -> None:
    book = book_with(A, 3)
    for number in (1, 2):
        assert book.arrive(B, number) is Verdict.LATE
    assert book.streams[B].received.upto == 2
    assert book.streams[B].acknowledged == 0
    assert NodeBook.from_facts(json.loads(json.dumps(book.to_facts()))).streams[B].acknowledged == 0
    # It was not forgotten, so the next birth lists it: a chain without a hole, and no stranger.
    findings = book.born(C, [span(B, 1, 2, A, 3), span(C, 1, 0, B, 2)])
    assert findings.losses == ()
    assert book.streams[B].acknowledged == 2
    assert book.successor(A) == B


def test_a_birth_from_before_a_stream_whose_frames_overtook_it_gives_up_nothing_of_that() -> None:
    book = book_with(A, 3)
    assert book.arrive(B, 2) is Verdict.LATE
    assert book.born(A, [span(A, 1, 2)]).losses == ()
    assert book.born(B, [span(A, 1, 3), span(B, 1, 0, A, 3)]).losses == ()
    assert book.streams[B].received.missing(2) == [(1, 1)]


def test_what_no_birth_ever_lists_was_on_a_disk_that_is_no_more() -> None:
    book = book_with(A, 3)
    book.arrive(B, 2)
    assert causes(book.born(C, [span(A, 1, 3), span(C, 1, 0, A, 3)])) == []
    assert causes(book.born(C, [span(C, 1, 5, A, 3)])) == [], "a birth of the same stream is no proof that it is newer"
    book = NodeBook.from_facts(json.loads(json.dumps(book.to_facts())))
    assert causes(book.born(D, [span(C, 1, 5, A, 3), span(D, 1, 0, C, 5)])) == [(B, 1, 1)]


def test_a_stream_that_is_named_as_a_predecessor_and_not_listed_is_finished() -> None:
    book = book_with(A, 3)
    book.arrive(B, 2)
    assert (B, 1, 1) in causes(book.born(C, [span(C, 1, 0, B, 2)]))


# -- two boxes with one id ---------------------------------------------------------------------------------


def test_what_another_boxs_birth_does_not_list_is_not_lost_when_its_own_box_lists_it_again() -> None:
    book = book_with(A, 3)
    assert book.arrive(A, 6) is Verdict.CURRENT
    book.born(B, [span(B, 1, 2)])  # the other box: it holds nothing of A
    assert book.streams[A].received.upto == 6
    assert book.streams[A].lost == [(4, 5)]
    book.born(C, [span(A, 4, 8), span(C, 1, 0, A, 8)])  # the box that wrote A
    assert book.streams[A].received.missing(8) == [(4, 5), (7, 8)]
    assert book.streams[A].lost == []
    assert booked(book, 4, 8)[0] == [(4, 5), (7, 8)]


def test_nobody_is_told_to_forget_what_was_closed_only_because_a_birth_did_not_list_it() -> None:
    book = book_with(A, 3)
    assert book.arrive(A, 6) is Verdict.CURRENT
    book.born(B, [span(B, 1, 2)])
    assert book.streams[A].acknowledged == 3
    assert NodeBook.from_facts(json.loads(json.dumps(book.to_facts()))).streams[A].acknowledged == 3


def test_what_the_box_itself_lists_no_more_is_lost_and_holds_no_receipt_back() -> None:
    book = book_with(A, 3)
    assert book.arrive(A, 6) is Verdict.CURRENT
    book.born(B, [span(B, 1, 2)])
    book.born(C, [span(A, 6, 7), span(C, 1, 0, A, 7)])
    assert book.streams[A].lost == [(4, 5)]
    assert book.streams[A].acknowledged == 6


def test_an_overtaken_birth_does_not_give_up_what_its_stream_holds_since() -> None:
    """The birth of A, from before its first frame was acknowledged, comes behind births that closed A's tail."""
    book = book_with(A, 3)
    assert book.arrive(A, 6) is Verdict.CURRENT
    book.born(B, [span(B, 1, 2)])
    book.born(A, [span(A, 1, 0)])
    assert book.streams[A].acknowledged == 3
    assert book.streams[A].lost == [(4, 5)]
    book.born(C, [span(A, 4, 8), span(C, 1, 0, A, 8)])
    assert book.streams[A].received.missing(8) == [(4, 5), (7, 8)]


def test_a_book_from_before_closed_ranges_were_kept_is_read() -> None:
    book = book_with(A, 3)
    facts = json.loads(json.dumps(book.to_facts()))
    facts["streams"] = [row[:10] for row in facts["streams"]]
    assert NodeBook.from_facts(facts).to_facts() == book.to_facts()


# -- frames ------------------------------------------------------------------------------------------------


def test_a_frame_is_current_once_then_a_duplicate() -> None:
    book = book_with(A, 3)
    assert [book.arrive(A, number) for number in (4, 4, 2)] == [Verdict.CURRENT, Verdict.DUPLICATE, Verdict.DUPLICATE]


def test_a_hole_delays_nothing_and_is_late_when_filled() -> None:
    book = book_with(A, 3)
    assert book.arrive(A, 6) is Verdict.CURRENT
    assert book.streams[A].received.upto == 3
    assert book.arrive(A, 5) is Verdict.LATE
    assert book.arrive(A, 4) is Verdict.LATE
    assert book.streams[A].received.upto == 6


def test_frames_of_any_stream_but_the_live_one_are_late() -> None:
    book = book_with(A, 3)
    assert book.arrive(B, 1) is Verdict.LATE


def test_at_the_65th_interval_live_frames_are_evaluated_but_not_counted() -> None:
    book = book_with(A, 1)
    for at in range(INTERVALS_MAX):
        assert book.arrive(A, 3 + 2 * at) is Verdict.CURRENT
    beyond = 3 + 2 * INTERVALS_MAX
    assert book.arrive(A, beyond) is Verdict.UNCOUNTED
    assert beyond not in book.streams[A].received
    assert book.arrive(A, beyond) is Verdict.DUPLICATE, "there is no room yet: it comes again"
    assert beyond not in book.streams[A].received
    for hole in range(2, 2 * INTERVALS_MAX + 2, 2):
        assert book.arrive(A, hole) is Verdict.LATE
    assert book.arrive(A, beyond) is Verdict.DUPLICATE, "stored when it first came; now it counts too"
    assert beyond in book.streams[A].received


def test_a_frame_stored_without_being_counted_is_not_lost_with_what_no_birth_lists() -> None:
    book = book_with(A, 1)
    for at in range(INTERVALS_MAX + 1):
        book.arrive(A, 3 + 2 * at)
    uncounted = 3 + 2 * INTERVALS_MAX
    lost = causes(book.born(B, [span(B, 1, 0, A, uncounted + 1)]))
    assert lost == [(A, hole, hole) for hole in range(2, uncounted + 2, 2)]


def test_an_uncounted_frame_counts_as_one_stored_even_within_a_block() -> None:
    book = book_with(A, 1)
    for at in range(INTERVALS_MAX + 1):
        book.arrive(A, 3 + 2 * at)
    fresh, losses = booked(book, 2, 4 + 2 * INTERVALS_MAX)
    assert (book.streams[A].received.upto, losses) == (4 + 2 * INTERVALS_MAX, [])
    assert fresh


# -- births: what is lost --------------------------------------------------------------------------------------


def test_the_first_birth_of_a_new_edge_loses_nothing() -> None:
    findings = NodeBook().born(A, [span(A, 1, 0)])
    assert causes(findings) == []
    assert findings.new_stream
    assert not findings.restored_disk


def test_a_restored_gateway_names_what_it_acknowledged_and_forgot() -> None:
    """The edge forgot 1..50 on the word of a gateway that knew them; this one knows 1..20."""
    book = book_with(A, 20)
    findings = book.born(B, [span(A, 51, 80, 0, 0), span(B, 1, 0, A, 80)])
    assert causes(findings) == [(A, 21, 50)]
    assert book.streams[A].received.upto == 50


def test_an_unknown_predecessor_is_a_loss() -> None:
    book = book_with(A, 5)
    findings = book.born(C, [span(C, 1, 0, B, 40)])
    assert (B, 1, 40) in causes(findings)
    assert findings.restored_disk is False


def test_a_predecessor_that_ends_above_what_is_committed_has_lost_its_tail() -> None:
    """All of A was acknowledged by the gateway before its restore: no birth lists it any more."""
    book = book_with(A, 5)
    findings = book.born(B, [span(B, 1, 0, A, 9)])
    assert causes(findings) == [(A, 6, 9)]


def test_an_edge_restored_by_more_than_a_second_is_told() -> None:
    book = book_with(A, 50)
    findings = book.born(B, [span(A, 31, 30), span(B, 1, 0, A, 30)])
    assert causes(findings) == [(A, 31, 50)]
    assert findings.restored_disk


def test_a_torn_tail_within_a_second_is_no_alarm() -> None:
    book = book_with(A, 50)
    findings = book.born(B, [span(A, 46, 45), span(B, 1, 0, A, 45)])
    assert causes(findings) == []
    assert not findings.restored_disk


def test_a_whole_stream_that_lived_less_than_a_second_is_a_torn_tail_too() -> None:
    """Killed between its first frames and their sync, however long the instruments had been silent before."""
    book = book_with(A, 50)
    book.born(B, [span(B, 1, 0, A, 50)])
    for number in (1, 2):
        book.arrive(B, number)
        book.time(B, number, 1_000_000 + 60_000 + 50 * number)
    findings = book.born(C, [span(C, 1, 0, A, 50)])
    assert causes(findings) == []
    assert not findings.restored_disk


def test_a_whole_stream_of_more_than_a_second_that_the_edge_forgot_is_a_restored_disk() -> None:
    book = book_with(A, 50)
    book.born(B, [span(B, 1, 0, A, 50)])
    for number in range(1, 30):
        book.arrive(B, number)
        book.time(B, number, 1_100_000 + 100 * number)
    findings = book.born(C, [span(C, 1, 0, A, 50)])
    assert findings.restored_disk


def test_holes_that_no_birth_lists_any_more_are_closed() -> None:
    book = book_with(A, 5)
    book.arrive(A, 8)
    findings = book.born(B, [span(B, 1, 0, A, 8)])
    assert causes(findings) == [(A, 6, 7)]
    assert book.streams[A].finished
    assert book.streams[A].lost == [(6, 7)]


def test_holes_that_the_birth_still_lists_are_waited_for() -> None:
    book = book_with(A, 5)
    book.arrive(A, 8)
    findings = book.born(B, [span(A, 6, 8), span(B, 1, 0, A, 8)])
    assert causes(findings) == []
    assert book.unsettled() == [A]
    assert book.arrive_block(A, 6, 8, ()) == ([(6, 7)], [])
    assert book.unsettled() == []


def test_a_full_list_of_streams_proves_nothing_about_those_it_leaves_out() -> None:
    book = book_with(A, 5)
    book.arrive(A, 8)
    many = [span(1_000 + at, 1, 2, 999 + at if at else D, 2) for at in range(UNFINISHED_LISTED_MAX)]
    findings = book.born(5_000, [*many, span(5_000, 1, 0, 4_999, 7)])
    assert (A, 6, 7) not in causes(findings)
    assert not book.streams[A].finished


def full_list(first: int) -> list[StreamSpan]:
    """As many streams as a birth may list, each of frames 1..2, from `first` on; that follows A, which ended at 3."""
    return [span(first + at, 1, 2, first + at - 1 if at else A, 2 if at else 3) for at in range(UNFINISHED_LISTED_MAX)]


def test_frames_before_their_birth_are_no_restored_edge_when_a_full_list_hides_their_stream() -> None:
    book = book_with(A, 3)
    listed = full_list(1_000)
    hidden = 1_000 + UNFINISHED_LISTED_MAX
    book.arrive(hidden, 1)
    findings = book.born(hidden + 1, [*listed, span(hidden + 1, 1, 0, hidden, 1)])
    assert causes(findings) == []
    # All but the newest have come, and been acknowledged, when a birth can list what was hidden.
    for each in (*listed, span(hidden + 1, 1, 1)):
        book.arrive_block(each.stream, 1, each.last, ())
    book = NodeBook.from_facts(json.loads(json.dumps(book.to_facts())))
    rest = [span(hidden, 1, 1, hidden - 1, 2), span(hidden + 2, 1, 0, hidden + 1, 1)]
    findings = book.born(hidden + 2, rest)
    assert (causes(findings), findings.two_boxes) == ([], False)


def test_an_edge_restored_behind_a_full_list_is_told_once_the_list_is_short_enough_to_tell() -> None:
    book = book_with(A, 50)
    book.born(B, [span(B, 1, 0, A, 50)])
    for number in range(1, 30):
        book.arrive(B, number)
        book.time(B, number, 1_100_000 + 100 * number)
    listed = full_list(1_000)  # an older disk: these follow A, and B is on it no more
    live = 1_001 + UNFINISHED_LISTED_MAX
    assert not book.born(live, [*listed, span(live, 1, 0, live - 1, 2)]).restored_disk
    for each in listed:
        book.arrive_block(each.stream, 1, each.last, ())
    findings = book.born(live, [span(live - 1, 1, 2, live - 2, 2), span(live, 1, 5, live - 1, 2)], unended=True)
    assert (B, 0, 0) in causes(findings)
    assert (findings.restored_disk, findings.two_boxes) == (True, False)


def test_what_was_live_before_full_lists_is_kept_until_one_tells_what_followed_it() -> None:
    with mock.patch.object(books, "STREAMS_KEPT_MAX", 3):
        book = book_with(A, 3)
        live = 1_001 + UNFINISHED_LISTED_MAX
        book.born(live, [*full_list(1_000), span(live, 1, 0, live - 1, 2)])
        assert A in book.streams


def test_a_loss_is_named_once() -> None:
    book = book_with(A, 20)
    book.born(B, [span(A, 51, 80), span(B, 1, 0, A, 80)])
    assert causes(book.born(B, [span(A, 51, 80), span(B, 1, 3, A, 80)])) == []


def test_a_second_box_with_a_history_of_its_own_is_told_while_the_first_is_there() -> None:
    book = book_with(A, 5)
    assert book.born(B, [span(B, 1, 0, C, 40)], unended=True).two_boxes


def test_two_boxes_with_one_id() -> None:
    book = book_with(A, 50)
    first = book.born(B, [span(B, 1, 0)])
    assert (first.restored_disk, first.two_boxes) == (True, False)
    second = book.born(C, [span(C, 1, 0, A, 50)])
    assert second.two_boxes


def test_a_loss_of_which_nobody_knows_the_range_says_so_in_words() -> None:
    book = book_with(A, 50)
    (loss,) = book.born(B, [span(B, 1, 0)]).losses
    assert str(loss).startswith(f"{A}: edge restored, or a second box under its id: ")
    assert str(loss).endswith("; which frames, if any, nobody can tell")
    assert "?" not in str(loss)
    assert str(replace(loss, first=7)) == f"{A}:7-? {loss.cause}"


def test_a_long_honest_life_is_never_two_boxes() -> None:
    book = book_with(1, 5)
    for stream in range(2, 40):
        findings = book.born(stream, [span(stream, 1, 0, stream - 1, 5)])
        assert not findings.restored_disk
        for number in range(1, 6):
            book.arrive(stream, number)
    assert book.strangers == []


def test_two_restores_far_apart_are_not_two_boxes() -> None:
    book = book_with(1, 5)
    assert not book.born(2, [span(2, 1, 0)]).two_boxes
    for stream in range(3, 30):
        book.arrive(stream - 1, 1)
        book.born(stream, [span(stream, 1, 0, stream - 1, 1)])
    assert not book.born(99, [span(99, 1, 0)]).two_boxes


def test_streams_taken_offline_form_a_chain_that_is_followed() -> None:
    book = book_with(A, 5)
    spans = [span(A, 6, 5), span(B, 1, 9, A, 5), span(C, 1, 7, B, 9), span(D, 1, 0, C, 7)]
    findings = book.born(D, spans[1:])
    assert not findings.restored_disk
    assert causes(findings) == []
    assert [book.successor(stream) for stream in (A, B, C, D)] == [B, C, D, 0]


def test_a_finished_stream_that_is_kept_no_longer_is_not_lost_while_the_one_after_it_is_unfinished() -> None:
    with mock.patch.object(books, "STREAMS_KEPT_MAX", 3):
        book = book_with(A, 3)
        book.born(B, [span(B, 1, 0, A, 3)])
        for live in range(200, 206):
            before = live - 1 if live > 200 else B
            book.arrive(before, 1)
            assert book.born(live, [span(B, 1, 5, A, 3), span(live, 1, 0, before, 5 if before == B else 1)]).losses == ()
        assert A not in book.streams


# -- ranges the edge dropped ------------------------------------------------------------------------------------


def test_a_dropped_range_is_a_loss_and_counts_as_settled() -> None:
    book = book_with(A, 2)
    book.born(B, [span(A, 3, 10), span(B, 1, 0, A, 10)])
    fresh, losses = booked(book, 3, 10, (5, 7))
    assert fresh == [(3, 10)]
    assert [(loss.first, loss.last, loss.cause) for loss in losses] == [(5, 7, "dropped by the edge: disk full")]
    assert book.streams[A].lost == [(5, 7)]
    assert book.arrive_block(A, 3, 10, [(5, 7, "disk full")]) == ([], [])


def test_a_dropped_range_that_came_live_before_is_no_loss() -> None:
    book = book_with(A, 6)
    _, losses = booked(book, 3, 10, (5, 8))
    assert [(loss.first, loss.last) for loss in losses] == [(7, 8)]


def test_a_dropped_range_is_journalled_even_when_there_is_no_room_for_another_interval() -> None:
    book = book_with(A, 1)
    for at in range(INTERVALS_MAX):
        book.arrive(A, 3 + 10 * at)
    _, losses = booked(book, 4, 8, (6, 7))
    assert [(loss.first, loss.last) for loss in losses] == [(6, 7)]


def test_a_block_for_which_there_is_no_room_counts_nothing() -> None:
    book = book_with(A, 1)
    for at in range(INTERVALS_MAX):
        book.arrive(A, 3 + 10 * at)
    assert book.arrive_block(A, 5_000, 5_010, [(5_001, 5_002, "disk full")]) is None
    assert 5_000 not in book.streams[A].received


# -- keeping -----------------------------------------------------------------------------------------------------


def test_a_book_reads_back_as_it_was_written() -> None:
    book = book_with(A, 40)
    book.arrive(A, 50)
    book.born(B, [span(A, 41, 60), span(B, 1, 0, A, 60)])
    book.arrive_block(A, 44, 46, [(45, 45, "x")])
    book.born(C, [span(C, 1, 0)])
    again = NodeBook.from_facts(json.loads(json.dumps(book.to_facts())))
    assert again.to_facts() == book.to_facts()
    assert again.arrive(A, 50) is Verdict.DUPLICATE


def test_the_number_of_finished_streams_is_bounded_and_open_ones_stay() -> None:
    book = NodeBook()
    book.born(1, [span(1, 1, 0)])
    book.arrive(1, 2)  # never finished: 1 is missing
    for stream in range(2, STREAMS_KEPT_MAX + 20):
        book.arrive(stream - 1, 1 if stream > 2 else 3)
        book.born(stream, [span(1, 1, 3), span(stream, 1, 0, stream - 1, 1)])
    assert len(book.streams) <= STREAMS_KEPT_MAX
    assert 1 in book.streams
    assert stream in book.streams
