"""The short way of a frame that is as usual ends where the long one does, whatever comes before, between and behind it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.facts import Fact, FrameArrived
from gateway.core.host import NodeSession
from tests.gateway.field import (
    GAS,
    LEVEL,
    PRESSURE,
    block_message,
    device_birth,
    device_frame,
    flag,
    node_birth,
    node_death,
    topic,
)
from wire import PAYLOAD_LIMITS, SPOOL_FAULT, DataType, MessageKind, decode_usual, encode_payload

TAGS = {LEVEL: 0, PRESSURE: 1}  # GAS is another node's
REORDER_MS = 2_000
S = 77

Sent = tuple[MessageKind, str | None, bytes]


def frame(seq: int, sequence: int, stream: int = S, aliases: tuple[int, ...] = (1, 2), device: str = "TANK") -> Sent:
    samples = [(alias, 3.0 + sequence) for alias in aliases]
    return MessageKind.DDATA, device, device_frame(seq % 256, samples, stream, sequence if stream else 0)


def dialogue(datatype: DataType) -> list[Sent]:
    """A session of 300 frames, with a little of everything between them."""
    sent: list[Sent] = [
        (MessageKind.NBIRTH, None, node_birth(live=S)),
        (MessageKind.DBIRTH, "TANK", device_birth(1, {LEVEL: 3.0, PRESSURE: 1.0, GAS: 2.0}, S, 1, datatype=datatype)),
    ]
    sent += [frame(2 + at, 2 + at, aliases=((1, 2), (2,), (1,))[at % 3]) for at in range(300)]
    seq = 302
    sent += [
        (MessageKind.NDATA, None, encode_payload(1_790_000_000_000, seq % 256, [flag(SPOOL_FAULT, True)])),
        frame(seq + 1, 0, stream=0), frame(seq + 2, 302, aliases=(1, 3)), frame(seq + 3, 303, aliases=(1, 9_000)),
        frame(seq + 4, 9, stream=78), frame(seq + 5, 304, device="OTHER"),
        (MessageKind.NDATA, None, block_message((seq + 6) % 256, b"no block")),
        (MessageKind.DDEATH, "TANK", encode_payload(1_790_000_000_000, (seq + 7) % 256, [])),
        frame(seq + 8, 305), (MessageKind.NDEATH, None, node_death()), frame(seq + 9, 306),
    ]  # fmt: skip
    return sent


def shown(what: Any) -> Any:
    """A fact as plain values that compare."""
    if isinstance(what, np.ndarray):
        return what.dtype, what.tolist()
    if is_dataclass(what) and not isinstance(what, type):
        return type(what).__name__, [shown(getattr(what, field.name)) for field in fields(what)]
    return what


class Twins:
    """Two sessions that are told the same, one of them in short where that can be."""

    def __init__(self) -> None:
        self.long, self.short = (NodeSession(TAGS, PAYLOAD_LIMITS, REORDER_MS, (*TAGS, GAS)) for _ in range(2))
        self.now_ms = 1_000

    def tell(self, kind: MessageKind, device: str | None, payload: bytes) -> list[Fact]:
        (usual,) = decode_usual([payload])
        facts = self.long.message(topic(kind, "E1", device), payload, self.now_ms)
        assert [shown(fact) for fact in self.short.message(topic(kind, "E1", device), payload, self.now_ms, usual)] == [
            shown(fact) for fact in facts
        ]
        return facts

    def later(self, ms: int) -> None:
        self.now_ms += ms
        assert list(map(shown, self.short.poll(self.now_ms))) == list(map(shown, self.long.poll(self.now_ms)))


def test_every_usual_frame_in_order_goes_the_short_way() -> None:
    session = NodeSession(TAGS, PAYLOAD_LIMITS, REORDER_MS)
    sent = dialogue(DataType.DOUBLE)[:302]
    for kind, device, payload in sent[:2]:
        session.message(topic(kind, "E1", device), payload, 0)
    for kind, device, payload in sent[2:]:
        (usual,) = decode_usual([payload])
        assert usual is not None
        assert isinstance(session._next_frame(topic(kind, "E1", device), usual), FrameArrived)


@settings(max_examples=60, deadline=None)
@given(
    datatype=st.sampled_from([DataType.DOUBLE, DataType.FLOAT, DataType.INT32, DataType.BOOLEAN]),
    strays=st.lists(st.tuples(st.integers(0, 312), st.integers(-20, 20), st.booleans()), max_size=8),
    pauses=st.dictionaries(st.integers(0, 312), st.integers(1, 3 * REORDER_MS), max_size=4),
    rebirth_at=st.integers(2, 400),
)
def test_both_ways_tell_the_same_and_leave_the_session_alike(
    datatype: DataType, strays: list[tuple[int, int, bool]], pauses: dict[int, int], rebirth_at: int
) -> None:
    sent = dialogue(datatype)
    for at, by, twice in strays:  # moved or repeated
        stray = sent[at % len(sent)] if twice else sent.pop(at % len(sent))
        sent.insert(max(0, at + by), stray)
    if rebirth_at < len(sent):
        sent[rebirth_at:rebirth_at] = sent[:2]
    twins = Twins()
    for at, message in enumerate(sent):
        twins.tell(*message)
        if at in pauses:
            twins.later(pauses[at])
    twins.later(10 * REORDER_MS)
    for name in ("_expected", "_missing", "_recent", "_count", "_newest_at", "_upto", "_gap_since_ms", "online", "_devices"):
        assert getattr(twins.short, name) == getattr(twins.long, name), name
