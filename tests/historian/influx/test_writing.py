"""Lines that a store will not take are found, all others are stored, and no batch costs requests without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.influx.answers import Away, Decision, Partial, Refused, Stored, TooLarge
from gateway.historian.influx.writing import REQUESTS_MAX, store_lines
from gateway.historian.store import StoreAwayError, StoreRefusedError


class Server:
    """Takes lines; those with `bad` in them it does not. `style`: how it says so."""

    def __init__(self, style: str, lines_max: int = 10_000) -> None:
        self.style, self.lines_max = style, lines_max
        self.stored: set[str] = set()
        self.requests = 0

    def post(self, body: bytes) -> Decision:
        self.requests += 1
        lines = body.decode().split("\n")
        if len(lines) > self.lines_max:
            return TooLarge()
        bad = [line for line in lines if "bad" in line]
        if self.style == "first" and bad:
            return Partial("parsing failed", numbers=(lines.index(bad[0]) + 1,))
        if self.style == "whole" and bad:
            return Partial("no reason")
        self.stored.update(line for line in lines if "bad" not in line)
        if not bad:
            return Stored()
        if self.style == "quotes":
            return Partial("unable to parse", lines=tuple(bad))
        if self.style == "counts":
            return Partial("line protocol", numbers=tuple(at + 1 for at, line in enumerate(lines) if "bad" in line))
        if self.style == "schema":
            return Partial("field type conflict", dropped=len(bad), schema=True)
        return Partial("something")


STYLES = ("quotes", "counts", "first", "silent", "whole", "schema")


@given(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=6), st.sampled_from(STYLES), st.integers(1, 300))
def test_every_line_is_stored_or_named(lines: int, bad: set[int], style: str, lines_max: int) -> None:
    bad = {at for at in bad if at < lines - 1}
    texts = [f"{'bad' if at in bad else 'good'} {at}" for at in range(lines)]
    server = Server(style, lines_max)
    refused = store_lines(server.post, texts)
    assert set(refused) == bad
    assert server.stored == {text for text in texts if "good" in text}
    assert all(refused.values())


@pytest.mark.parametrize("style", STYLES)
def test_a_batch_of_nothing_but_bad_lines_ends(style: str) -> None:
    texts = [f"bad {at}" for at in range(5_000)]
    server = Server(style)
    if style == "schema":
        with pytest.raises(StoreRefusedError, match="takes none of our lines") as refused:
            store_lines(server.post, texts, "plant")
        assert "storage.stores.plant" in refused.value.message_zh
        assert server.requests == 1, "a database that is wrong as a whole is a person's matter, and nothing is given up"
    else:
        assert set(store_lines(server.post, texts)) == set(range(5_000))
        assert server.requests <= 2 * REQUESTS_MAX


def test_a_store_that_finds_one_line_too_large_is_refused_and_no_sample_is_given_up() -> None:
    """Our longest line has some 2 KB: the limit is wrong, the store's or that of a proxy before it, and not the line."""
    server = Server("quotes", lines_max=0)
    with pytest.raises(StoreRefusedError, match="client_max_body_size") as refused:
        store_lines(server.post, [f"good {at}" for at in range(5_000)], "plant")
    for text in (str(refused.value), refused.value.message_zh):
        assert "storage.stores.plant" in text
        assert "6 " in text, "how large the line was"
    assert server.requests < 20


@pytest.mark.parametrize(
    ("decision", "error"),
    [(Away("later", "稍后", 7.0), StoreAwayError), (Refused("no", "不"), StoreRefusedError)],
)
def test_what_is_not_known_to_be_stored_is_said(decision: Decision, error: type) -> None:
    answers = iter([Stored(), decision])
    with pytest.raises(error) as raised:
        store_lines(lambda _: next(answers), ["x" * 3_000_000, "y" * 3_000_000])
    assert getattr(raised.value, "retry_after_s", 7.0) == 7.0


@pytest.mark.parametrize(
    ("dropped", "young", "refused"),
    [
        pytest.param(2, [False, False, True], False, id="as many as are old"),
        pytest.param(3, [False, False, True], True, id="one that is of now"),
        pytest.param(1, [True, True, True], True, id="of the present alone"),
        pytest.param(None, [True, True, True], False, id="a store that does not count"),
    ],
)
def test_a_store_that_drops_the_present_as_too_old_is_refused(dropped: int | None, young: list[bool], refused: bool) -> None:
    """No store keeps less than an hour: its clock or ours is wrong, and everything would be lost without a word."""
    lines = ["a", "b", "c"]
    if not refused:
        assert store_lines(lambda _: Stored(dropped), lines, "plant", young) == {}
        return
    with pytest.raises(StoreRefusedError, match="clock") as raised:
        store_lines(lambda _: Stored(dropped), lines, "plant", young)
    for text in (str(raised.value), raised.value.message_zh):
        assert "storage.stores.plant" in text
        assert "hazardgate store setup" in text
