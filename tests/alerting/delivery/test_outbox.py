"""Ids and sequence numbers."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from alerting.delivery import notice_id, number
from tests.alerting.delivery.senders import notice


def test_a_notice_id_is_stable_and_apart_per_receiver_transition_and_revision() -> None:
    assert notice_id("t1", 1, "CITY") == notice_id("t1", 1, "CITY") == "7a282beca796e84285a7231977da3b18"
    ids = {
        notice_id(step, revision, receiver)
        for step in ("t1", "t2", "t1C") for revision in (1, 11, 5) for receiver in ("CITY", "ITY", "PARK")
    }  # fmt: skip
    assert len(ids) == 27
    assert all(len(found) == 32 and int(found, 16) >= 0 for found in ids)


@given(
    commits=st.lists(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(("red", "blue"))), max_size=12), max_size=6),
    start=st.dictionaries(st.tuples(st.sampled_from("ABC"), st.sampled_from(("red", "blue"))), st.integers(1, 10**6)),
)
def test_numbers_have_no_gap_and_no_repeat_per_receiver_and_lane(
    commits: list[list[tuple[str, str]]], start: dict[tuple[str, str], int]
) -> None:
    following, given_out, count = dict(start), defaultdict(list), 0
    for commit in commits:
        notices = []
        for receiver, lane in commit:
            count += 1
            notices.append(notice(f"a{count}", receiver=receiver, lane=lane))
        before = dict(following)
        rows, after = number(notices, "L1", following)
        assert following == before, "the input is not changed: a commit that fails is tried again with it"
        assert [row.id for row in rows] == [n.id for n in notices]
        for row in rows:
            given_out[row.receiver, row.lane].append(row.sequence)
        following = after
    for key, numbers in given_out.items():
        first = start.get(key, 1)
        assert numbers == list(range(first, first + len(numbers)))
        assert following[key] == first + len(numbers)
