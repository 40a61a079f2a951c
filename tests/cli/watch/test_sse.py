"""The stream's text form: bytes cut anywhere make the same events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.watch.sse import EventTooLargeError, SseEvent, SseParser


@pytest.mark.parametrize(
    ("text", "events"),
    [
        pytest.param("data: x\n\n", [("message", "x", "")], id="a nameless event"),
        pytest.param("id: L:1:0\nevent: values\ndata: {}\n\n", [("values", "{}", "L:1:0")], id="all three fields"),
        pytest.param("event: a\r\ndata: 1\r\n\r\n", [("a", "1", "")], id="CR LF ends lines too"),
        pytest.param("data: 1\ndata: 2\n\n", [("message", "1\n2", "")], id="several data lines are one text"),
        pytest.param("data:1\n\n", [("message", "1", "")], id="the space after the colon may be missing"),
        pytest.param("data:  1\n\n", [("message", " 1", "")], id="only one space belongs to the colon"),
        pytest.param(": ping\n\n", [], id="a comment is no event"),
        pytest.param("event: a\n\ndata: 1\n\n", [("message", "1", "")], id="a name without data is forgotten"),
        pytest.param("id: 7\ndata: 1\n\ndata: 2\n\n", [("message", "1", "7"), ("message", "2", "7")], id="an id stays"),
        pytest.param("retry: 1000\ndata: 1\n\n", [("message", "1", "")], id="other fields do nothing"),
        pytest.param("data: 1\n", [], id="an event that did not end is not told"),
        pytest.param("data: 红 \u2028\n\n", [("message", "红 \u2028", "")], id="only LF ends a line"),
    ],
)
def test_events(text: str, events: list[tuple[str, str, str]]) -> None:
    assert SseParser().feed(text.encode()) == [SseEvent(*event) for event in events]


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1), st.data())
def test_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(f"id: {at}\nevent: e\ndata: {text}\n\n" for at, text in enumerate(texts)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = SseParser()
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert events == [SseEvent("e", text, str(at)) for at, text in enumerate(texts)]


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(b"x" * 101, id="a line without an end"),
        pytest.param(b"data: 123456789\n" * 12, id="an event without an end"),
    ],
)
def test_an_event_has_a_bound(flood: bytes) -> None:
    parser = SseParser(bytes_max=100)
    with pytest.raises(EventTooLargeError):
        parser.feed(flood)


def test_many_events_may_be_larger_together_than_one_may_be() -> None:
    assert len(SseParser(bytes_max=100).feed(b"data: 123456789\n\n" * 100)) == 100
