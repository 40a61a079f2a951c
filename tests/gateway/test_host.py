"""The host's side of a Sparkplug session, as dialogues: messages and moments in, facts out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gateway.core.facts import (
    BlockArrived,
    DeviceDied,
    Fact,
    FrameArrived,
    NodeBorn,
    NodeDied,
    NodeFact,
    RebirthWanted,
    Refused,
)
from gateway.core.host import REBIRTH_FIRST_MS, REBIRTH_MAX_MS, NodeSession
from gateway.core.sessions import Sessions
from tests.gateway.field import (
    GAS,
    LEVEL,
    PRESSURE,
    T0_MS,
    block,
    block_message,
    device_birth,
    device_frame,
    flag,
    int64,
    node_birth,
    node_death,
    site,
    topic,
)
from tests.gateway.field import Taken as Kept
from wire import (
    CLOCK_SYNCED,
    PAYLOAD_LIMITS,
    SPOOL_FAULT,
    DataType,
    MessageKind,
    Metric,
    StreamSpan,
    encode_payload,
    sample_metric,
)

TAGS = {LEVEL: 0, PRESSURE: 1, GAS: 2}
S = 77
REORDER_TIMEOUT_MS = 2_000


class Talk:
    """One session under test. Facts are noted as short words."""

    def __init__(self) -> None:
        self.session = NodeSession(TAGS, PAYLOAD_LIMITS, REORDER_TIMEOUT_MS)
        self.now_ms = 1_000
        self.facts: list[Fact] = []

    def __call__(self, kind: MessageKind, payload: bytes, device: str | None = None) -> list[str]:
        self.facts = self.session.message(topic(kind, "E1", device), payload, self.now_ms)
        return words(self.facts)

    def later(self, ms: int) -> list[str]:
        self.now_ms += ms
        self.facts = self.session.poll(self.now_ms)
        return words(self.facts)

    def frame(self, seq: int, sequence: int, value: float = 3.0) -> list[str]:
        """A DDATA of ours."""
        return self(MessageKind.DDATA, device_frame(seq, [(1, value)], S, sequence), "TANK")

    def foreign(self, seq: int, value: float) -> list[str]:
        return self(MessageKind.DDATA, device_frame(seq, [(1, value)]), "TANK")


def words(facts: Sequence[Fact]) -> list[str]:
    said = []
    for fact in facts:
        match fact:
            case NodeBorn(live):
                said.append(f"born {live}" if live else "born")
            case FrameArrived(device, stream, sequence, batch, historical):
                mark = f" {stream}/{sequence}" if stream else ""
                said.append(f"{'stored ' if historical else ''}{device}{mark} {[float(v) for v in batch.value]}")
            case BlockArrived():
                said.append("block")
            case NodeDied():
                said.append("died")
            case DeviceDied(device):
                said.append(f"{device} died")
            case NodeFact(name, value):
                said.append(f"{name}={value}")
            case Refused(_, reason, _):
                said.append(f"refused: {reason}")
            case RebirthWanted():
                said.append("rebirth!")
    return said


@pytest.fixture
def ours() -> Talk:
    """A node of ours, born with stream 77, its tank born as frame 1."""
    talk = Talk()
    assert talk(MessageKind.NBIRTH, node_birth(3, S)) == ["born 77"]
    assert talk(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}, S, 1), "TANK") == ["TANK 77/1 [1.0]"]
    return talk


@pytest.fixture
def without_spool() -> Talk:
    """A node of ours whose spool takes nothing: it said so in its birth, and its frames have no marks."""
    talk = Talk()
    assert talk(MessageKind.NBIRTH, node_birth(3, S, spool_fault=True)) == ["born 77"]
    assert talk(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}), "TANK") == ["TANK [1.0]"]
    return talk


@pytest.fixture
def foreign() -> Talk:
    """A node that is not ours."""
    talk = Talk()
    assert talk(MessageKind.NBIRTH, node_birth(3)) == ["born"]
    assert talk(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}), "TANK") == ["TANK [1.0]"]
    return talk


# -- births and deaths ------------------------------------------------------------------------------------


def test_a_birth_tells_the_streams_the_node_holds() -> None:
    talk = Talk()
    spans = [StreamSpan(70, 5, 9, 60, 4), StreamSpan(S, 1, 0, 70, 9)]
    talk(MessageKind.NBIRTH, node_birth(0, S, 0, (70, 9), spans, config_hash="abc", spool_fault=True))
    (born,) = talk.facts
    assert born == NodeBorn(S, tuple(spans), "abc", True, 0, True)


def test_a_birth_that_leaves_the_live_stream_out_of_its_list_still_tells_it() -> None:
    talk = Talk()
    talk(MessageKind.NBIRTH, node_birth(0, S, 4, (70, 9), [StreamSpan(70, 5, 9, 60, 4)]))
    (born,) = talk.facts
    assert isinstance(born, NodeBorn)
    assert born.spans[-1] == StreamSpan(S, 1, 4, 70, 9)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(node_birth(0, S, seq=5), id="seq not 0"),
        pytest.param(encode_payload(T0_MS, 0, [flag("Node Control/Rebirth", False)]), id="no bdSeq"),
        pytest.param(encode_payload(T0_MS, 0, [Metric("bdSeq", timestamp_ms=T0_MS, datatype=DataType.STRING, value="0")]),
                     id="bdSeq is no number"),
        pytest.param(b"\xff\xfe not protobuf", id="garbage"),
    ],
)  # fmt: skip
def test_a_birth_that_breaks_the_rules_begins_nothing(payload: bytes) -> None:
    talk = Talk()
    said = talk(MessageKind.NBIRTH, payload)
    assert said[0].startswith("refused")
    assert said[1:] == ["rebirth!"]
    assert not talk.session.online


@pytest.mark.fault("F26")
def test_an_old_will_with_another_bdseq_ends_nothing(ours: Talk) -> None:
    assert ours(MessageKind.NDEATH, node_death(2)) == []
    assert ours.session.online
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]


@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline")
def test_the_death_of_this_session_ends_it(ours: Talk) -> None:
    assert ours(MessageKind.NDEATH, node_death(3)) == ["died"]
    assert not ours.session.online
    assert ours(MessageKind.NDEATH, node_death(3)) == []


@pytest.mark.spec("tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline")
def test_the_death_of_a_node_is_that_of_its_devices(ours: Talk) -> None:
    ours(MessageKind.NDEATH, node_death(3))
    ours(MessageKind.NBIRTH, node_birth(4, S, 1))
    assert ours.frame(1, 2) == ["refused: data of a device before its birth", "rebirth!"]
    assert ours(MessageKind.DBIRTH, device_birth(2, {LEVEL: 2.0}, S, 3), "TANK") == ["TANK 77/3 [2.0]"]


def test_the_death_of_a_device_is_told_and_its_data_need_a_new_birth(ours: Talk) -> None:
    death = encode_payload(T0_MS, 2, [])
    assert ours(MessageKind.DDEATH, death, "TANK") == ["TANK died"]
    assert ours.frame(3, 2) == ["refused: data of a device before its birth", "rebirth!"]
    assert ours(MessageKind.DBIRTH, device_birth(4, {LEVEL: 2.0}, S, 3), "TANK") == ["TANK 77/3 [2.0]"]


@pytest.mark.fault("F23")
def test_a_copy_of_a_birth_begins_nothing_anew(ours: Talk) -> None:
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]
    assert ours(MessageKind.NBIRTH, node_birth(3, S)) == []
    assert ours.frame(3, 3) == ["TANK 77/3 [3.0]"]


@pytest.mark.fault("F23")
def test_a_copy_of_a_birth_brings_no_dead_node_back(ours: Talk) -> None:
    assert ours(MessageKind.NDEATH, node_death(3)) == ["died"]
    assert ours(MessageKind.NBIRTH, node_birth(3, S)) == []
    assert not ours.session.online


@pytest.mark.fault("F24")
def test_a_birth_that_frames_and_the_death_of_its_session_overtook_brings_no_dead_node_back() -> None:
    talk = Talk()
    talk(MessageKind.NBIRTH, node_birth(3, S, 4))
    talk(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}, S, 8), "TANK")
    talk(MessageKind.NDEATH, node_death(3))
    assert talk(MessageKind.NBIRTH, node_birth(3, S, 7)) == []
    assert not talk.session.online
    assert talk.frame(9, 9) == ["rebirth!"], "the death was somebody else's word"
    assert talk(MessageKind.NBIRTH, node_birth(3, S, 9)) == ["born 77"]


@pytest.mark.fault("F24")
@pytest.mark.parametrize(("last", "told"), [(3, []), (5, []), (6, ["born 77"])])
def test_a_birth_from_before_the_end_of_its_stream_was_told_is_overtaken(ours: Talk, last: int, told: list[str]) -> None:
    """Beyond that end only a second box has written."""
    assert ours(MessageKind.NBIRTH, node_birth(3, S + 1, 0, (S, 5))) == ["born 78"]
    assert ours(MessageKind.NBIRTH, node_birth(3, S, last)) == told
    assert ours(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}, S + 1, 1), "TANK")[-1] == "TANK 78/1 [1.0]"


def test_a_birth_of_a_node_that_counts_nothing_may_be_the_same_again(foreign: Talk) -> None:
    assert foreign(MessageKind.NBIRTH, node_birth(3)) == ["born"]


def test_a_new_birth_forgets_the_aliases_of_the_old_one(ours: Talk) -> None:
    ours(MessageKind.NBIRTH, node_birth(3, S, 1))
    ours(MessageKind.DBIRTH, device_birth(1, {GAS: 0.5}, S, 2, first_alias=9), "GAS")
    ours(MessageKind.DBIRTH, device_birth(2, {}, S, 3), "TANK")
    assert ours.frame(3, 4)[0] == "refused: unknown alias"


def test_our_own_lost_link_ends_the_session_for_us(ours: Talk) -> None:
    assert words(ours.session.lost()) == ["died"]
    assert ours.session.lost() == []
    assert ours.frame(2, 2) == ["rebirth!"]


# -- order: nodes of ours --------------------------------------------------------------------------------------


@pytest.mark.fault("F26")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-start")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-rebirth")
def test_a_gap_holds_nothing_back_and_asks_for_a_rebirth_after_the_timeout(ours: Talk) -> None:
    assert ours.frame(4, 4) == ["TANK 77/4 [3.0]"]
    assert ours.frame(5, 5) == ["TANK 77/5 [3.0]"]
    assert ours.later(REORDER_TIMEOUT_MS - 1) == []
    assert ours.later(1) == ["rebirth!"]
    assert ours.later(REORDER_TIMEOUT_MS) == []


@pytest.mark.spec("tck-id-operational-behavior-host-reordering-param")
@pytest.mark.parametrize("ours_or_not", [S, 0], ids=["a node of ours", "a foreign node"])
def test_the_reorder_timeout_is_the_sites(ours_or_not: int) -> None:
    sessions = Sessions(site().model_copy(update={"reorder_timeout_s": 7.5}), PAYLOAD_LIMITS, 0)
    session = sessions.nodes["E1"]
    session.message(topic(MessageKind.NBIRTH, "E1"), node_birth(3, ours_or_not), 1_000)
    session.message(topic(MessageKind.DBIRTH, "E1", "TANK"), device_birth(3, {LEVEL: 1.0}, ours_or_not, min(ours_or_not, 1)), 1_000)
    assert "rebirth!" not in words(session.poll(8_499))
    assert "rebirth!" in words(session.poll(8_500))


@pytest.mark.spec("tck-id-operational-behavior-host-reordering-success")
def test_what_comes_in_time_out_of_order_cancels_the_rebirth(ours: Talk) -> None:
    ours.frame(4, 4)
    assert ours.frame(3, 3) == ["TANK 77/3 [3.0]"]
    assert ours.later(REORDER_TIMEOUT_MS - 1) == []
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]
    assert ours.later(10 * REORDER_TIMEOUT_MS) == []


def test_part_of_a_gap_filled_is_not_enough(ours: Talk) -> None:
    ours.frame(4, 4)
    ours.frame(3, 3)
    assert ours.later(REORDER_TIMEOUT_MS) == ["rebirth!"]


def test_sequence_numbers_wrap_without_a_gap(ours: Talk) -> None:
    for number in range(2, 600):
        assert ours.frame(number % 256, number) == [f"TANK 77/{number} [3.0]"]
    assert ours.later(10 * REORDER_TIMEOUT_MS) == []


def test_a_frame_that_comes_twice_is_handed_on_for_its_own_number_to_tell(ours: Talk) -> None:
    ours.frame(2, 2)
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]
    assert ours.later(10 * REORDER_TIMEOUT_MS) == []


# -- order: other nodes --------------------------------------------------------------------------------------------


@pytest.mark.fault("F24")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-success")
def test_messages_of_a_foreign_node_are_put_in_order(foreign: Talk) -> None:
    assert foreign.foreign(3, 30.0) == []
    assert foreign.foreign(4, 40.0) == []
    assert foreign.foreign(2, 20.0) == ["TANK [20.0]", "TANK [30.0]", "TANK [40.0]"]
    assert foreign.later(10 * REORDER_TIMEOUT_MS) == []


@pytest.mark.fault("F24")
@pytest.mark.spec("tck-id-operational-behavior-host-reordering-rebirth")
def test_what_waited_in_vain_is_handed_on_and_a_rebirth_is_asked_for(foreign: Talk) -> None:
    foreign.foreign(4, 40.0)
    foreign.foreign(3, 30.0)
    assert foreign.later(REORDER_TIMEOUT_MS) == ["TANK [30.0]", "TANK [40.0]", "rebirth!"]
    assert foreign.foreign(2, 20.0) == [], "an old value must not stand as the present one"
    assert foreign.foreign(5, 50.0) == ["TANK [50.0]"]


def test_a_birth_drops_what_waited(foreign: Talk) -> None:
    foreign.foreign(4, 40.0)
    foreign(MessageKind.NBIRTH, node_birth(3))
    assert foreign.later(10 * REORDER_TIMEOUT_MS) == []


def test_stored_values_of_a_foreign_node_are_told_apart_from_current_ones(foreign: Talk) -> None:
    old = sample_metric(None, 1, T0_MS - 60_000, 9.0, 192, None)
    payload = encode_payload(T0_MS, 2, [
        Metric(**{**{name: getattr(old, name) for name in old.__slots__}, "is_historical": True}),
        sample_metric(None, 1, T0_MS, 4.0, 192, None),
    ])  # fmt: skip
    assert foreign(MessageKind.DDATA, payload, "TANK") == ["TANK [4.0]", "stored TANK [9.0]"]


# -- what cannot be used ---------------------------------------------------------------------------------------------


@pytest.mark.fault("F26")
def test_data_before_birth_ask_for_one_rebirth(ours: Talk) -> None:
    talk = Talk()
    assert talk.frame(2, 2) == ["rebirth!"]
    assert talk.frame(3, 3) == []
    talk.now_ms += REBIRTH_FIRST_MS
    assert talk.frame(4, 4) == ["rebirth!"]


@pytest.mark.fault("F55")
def test_an_unknown_alias_is_refused_with_its_bytes_and_asks_for_one_rebirth(ours: Talk) -> None:
    payload = device_frame(2, [(1, 3.0), (999, 4.0)], S, 2)
    assert ours(MessageKind.DDATA, payload, "TANK") == ["refused: unknown alias", "rebirth!"]
    refused = ours.facts[0]
    assert isinstance(refused, Refused)
    assert refused.payload == payload
    assert ours(MessageKind.DDATA, device_frame(3, [(999, 4.0)], S, 3), "TANK") == ["refused: unknown alias"]


@pytest.mark.fault("F55")
def test_a_node_that_never_learns_is_asked_ever_less_often(ours: Talk) -> None:
    """Its births come promptly and change nothing: without a limit this would go round as fast as the network."""
    asked = []
    for _ in range(2_000):
        ours.now_ms += 100
        said = [*ours(MessageKind.DDATA, device_frame(2, [(999, 4.0)], S, 2), "TANK"), *words(ours.session.poll(ours.now_ms))]
        if "rebirth!" in said:
            asked.append(ours.now_ms)
            ours(MessageKind.NBIRTH, node_birth(3, S, 1))
            ours(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}, S, 2), "TANK")
    waits = np.diff(asked)
    assert len(asked) >= 5
    assert list(waits) == sorted(waits)
    assert waits[0] >= REBIRTH_FIRST_MS
    assert waits[-1] == REBIRTH_MAX_MS


def test_a_wish_for_a_rebirth_that_came_too_soon_is_not_forgotten(ours: Talk) -> None:
    ours(MessageKind.DDATA, device_frame(2, [(999, 4.0)], S, 2), "TANK")  # asks
    ours(MessageKind.NBIRTH, node_birth(3, S, 1))
    ours(MessageKind.DBIRTH, device_birth(1, {LEVEL: 1.0}, S, 2), "TANK")
    ours.frame(4, 5)  # 2 and 3 are missing, and no other message follows
    assert ours.later(REORDER_TIMEOUT_MS) == []
    assert ours.later(REBIRTH_FIRST_MS) == ["rebirth!"]


def unmarked(talk: Talk, seq: int, value: float, device: str = "TANK") -> list[str]:
    """A DDATA of a node of ours whose spool takes nothing."""
    return talk(MessageKind.DDATA, device_frame(seq, [(1, value)]), device)


@pytest.mark.fault("F23")
def test_a_repeated_frame_without_marks_is_not_the_present_again(without_spool: Talk) -> None:
    """Else a value from before an excursion would lower the alarm that stands since."""
    assert unmarked(without_spool, 2, 3.0) == ["TANK [3.0]"]
    assert unmarked(without_spool, 3, 25.0) == ["TANK [25.0]"]
    assert unmarked(without_spool, 2, 3.0) == []
    assert unmarked(without_spool, 3, 25.0) == []
    assert unmarked(without_spool, 4, 26.0) == ["TANK [26.0]"]
    assert without_spool.later(10_000) == [], "a repeat is no hole"


@pytest.mark.fault("F24")
def test_an_overtaken_frame_without_marks_is_stored_and_lowers_nothing(without_spool: Talk) -> None:
    assert unmarked(without_spool, 3, 25.0) == ["TANK [25.0]"]
    assert unmarked(without_spool, 2, 3.0) == ["stored TANK [3.0]"]
    assert unmarked(without_spool, 2, 3.0) == []


@pytest.mark.fault("F24")
@pytest.mark.parametrize("between", [1, 17, 100])
def test_a_frame_without_marks_lowers_nothing_however_late_it_comes(without_spool: Talk, between: int) -> None:
    """Overtaken for longer than the reorder timeout, or a stray copy that nobody remembers having seen."""
    assert unmarked(without_spool, 3, 25.0) == ["TANK [25.0]"]
    for seq in range(4, 3 + between):
        assert unmarked(without_spool, seq, 25.0) == ["TANK [25.0]"]
    assert without_spool.later(REORDER_TIMEOUT_MS) == ["rebirth!"]
    assert "TANK [3.0]" not in unmarked(without_spool, 2, 3.0)
    assert unmarked(without_spool, 3 + between, 26.0) == ["TANK [26.0]"]


@pytest.mark.fault("F24")
@pytest.mark.parametrize("states", [(True, False), (False, True)])
def test_a_state_of_the_node_is_the_one_it_told_last(ours: Talk, states: tuple[bool, bool]) -> None:
    """Else an overtaken "the spool works" would end the alarm of a spool that has failed since."""
    told = [encode_payload(T0_MS, 2 + at, [flag(SPOOL_FAULT, state)]) for at, state in enumerate(states)]
    assert ours(MessageKind.NDATA, told[1]) == [f"{SPOOL_FAULT}={states[1]}"]
    assert ours(MessageKind.NDATA, told[0]) == []
    assert ours(MessageKind.NDATA, told[1]) == []


@pytest.mark.fault("F24")
def test_a_frame_without_marks_that_a_birth_overtook_lowers_nothing(without_spool: Talk) -> None:
    """Its number would be far ahead in the new session; but no frame lacks marks there."""
    assert unmarked(without_spool, 2, 25.0) == ["TANK [25.0]"]
    assert without_spool(MessageKind.NBIRTH, node_birth(3, S + 1, 0, (S, 1))) == ["born 78"]
    assert without_spool(MessageKind.DBIRTH, device_birth(1, {LEVEL: 25.0}, S + 1, 1), "TANK") == ["TANK 78/1 [25.0]"]
    assert unmarked(without_spool, 40, 3.0) == ["stored TANK [3.0]", "rebirth!"]


@pytest.mark.fault("F71")
def test_frames_without_marks_are_the_present_once_the_node_said_that_its_spool_takes_nothing(ours: Talk) -> None:
    assert unmarked(ours, 2, 3.0) == ["stored TANK [3.0]", "rebirth!"], "its word got lost, or this is an old one"
    assert ours(MessageKind.NDATA, encode_payload(T0_MS, 3, [flag(SPOOL_FAULT, True)])) == [f"{SPOOL_FAULT}=True"]
    assert unmarked(ours, 4, 25.0) == ["TANK [25.0]"]
    assert ours(MessageKind.NDATA, encode_payload(T0_MS, 5, [flag(SPOOL_FAULT, False)])) == [f"{SPOOL_FAULT}=False"]
    assert unmarked(ours, 6, 3.0)[0] == "stored TANK [3.0]"


def test_a_state_that_another_message_of_the_node_overtook_is_told(ours: Talk) -> None:
    assert ours(MessageKind.NDATA, encode_payload(T0_MS, 3, [flag(CLOCK_SYNCED, False)])) == [f"{CLOCK_SYNCED}=False"]
    assert ours(MessageKind.NDATA, encode_payload(T0_MS, 2, [flag(SPOOL_FAULT, True)])) == [f"{SPOOL_FAULT}=True"]


def test_a_frame_without_marks_that_only_another_device_overtook_is_its_devices_present(without_spool: Talk) -> None:
    assert without_spool(MessageKind.DBIRTH, device_birth(2, {GAS: 0.0}, first_alias=9), "GAS") == ["GAS [0.0]"]
    assert without_spool(MessageKind.DDATA, device_frame(4, [(9, 0.5)]), "GAS") == ["GAS [0.5]"]
    assert unmarked(without_spool, 3, 25.0) == ["TANK [25.0]"]
    assert unmarked(without_spool, 5, 26.0) == ["TANK [26.0]"]


@pytest.mark.parametrize("seq", [2, 3])
def test_marked_frames_say_themselves_where_they_belong(ours: Talk, seq: int) -> None:
    assert ours.frame(3, 3) == ["TANK 77/3 [3.0]"]
    assert ours.frame(seq, seq) == [f"TANK 77/{seq} [3.0]"]


def test_a_rebirth_request_that_got_lost_is_repeated_until_the_node_is_born(ours: Talk) -> None:
    ours.frame(4, 4)
    assert ours.later(REORDER_TIMEOUT_MS) == ["rebirth!"]
    assert ours.later(REBIRTH_FIRST_MS) == ["rebirth!"]
    ours(MessageKind.NBIRTH, node_birth(3, S, 4))
    assert ours.later(10 * REBIRTH_MAX_MS) == []


def test_a_node_that_died_is_not_asked_for_a_rebirth(ours: Talk) -> None:
    ours.frame(4, 4)
    ours.later(REORDER_TIMEOUT_MS)
    ours(MessageKind.NDEATH, node_death(3))
    assert ours.later(10 * REBIRTH_MAX_MS) == []


@pytest.mark.fault("F55")
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\x0a\xff\xff\xff\xff", id="cut short"),
        pytest.param(b"not protobuf at all", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(encode_payload(T0_MS, None, [sample_metric(None, 1, T0_MS, 3.0, 192)]), id="no seq"),
        pytest.param(
            encode_payload(T0_MS, 2, [Metric(None, 1, T0_MS, DataType.BOOLEAN, True)]), id="a Boolean where a Double was born"
        ),
        pytest.param(
            encode_payload(T0_MS, 2, [Metric(None, 1, T0_MS, DataType.INT32, 7)]), id="an integer where a Double was born"
        ),
        pytest.param(encode_payload(T0_MS, 2, [int64("Spool/Stream", S), sample_metric(None, 1, T0_MS, 3.0, 192)]),
                     id="half a mark"),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_refused_and_the_session_goes_on(ours: Talk, payload: bytes) -> None:
    said = ours(MessageKind.DDATA, payload, "TANK")
    assert said[0].startswith("refused")
    assert said[1:] == ["rebirth!"]
    assert ours.session.online
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]


@pytest.mark.fault("F56")
def test_an_oversize_payload_is_refused_before_it_is_read(ours: Talk) -> None:
    said = ours(MessageKind.DDATA, b"\x00" * (PAYLOAD_LIMITS.bytes_max + 1), "TANK")
    assert "bytes" in said[0]
    assert said[1:] == ["rebirth!"]
    assert ours.frame(2, 2) == ["TANK 77/2 [3.0]"]


@pytest.mark.fault("F56")
def test_a_million_metrics_are_refused(ours: Talk) -> None:
    many = b"\x12\x02\x10\x01" * (PAYLOAD_LIMITS.metrics_max + 1)  # field 2, two bytes: alias 1
    assert ours(MessageKind.DDATA, many, "TANK")[0].startswith("refused")


# -- values -----------------------------------------------------------------------------------------------------------


def test_declared_names_that_are_no_tag_of_this_node_are_passed_over(ours: Talk) -> None:
    ours(MessageKind.DBIRTH, device_birth(2, {"T9.OTHER": 5.0, LEVEL: 2.0}, S, 2, first_alias=40), "TANK")
    (frame,) = ours.facts
    assert isinstance(frame, FrameArrived)
    assert frame.batch.tag.tolist() == [0]
    assert ours(MessageKind.DDATA, device_frame(3, [(40, 7.0), (41, 8.0)], S, 3), "TANK") == ["TANK 77/3 [8.0]"]


def test_a_marked_frame_without_a_tag_of_ours_is_still_a_frame(ours: Talk) -> None:
    """Its number has to be counted, or the stream would never be acknowledged."""
    ours(MessageKind.DBIRTH, device_birth(2, {"T9.OTHER": 5.0}, S, 2, first_alias=40), "TANK")
    assert words(ours.facts) == ["TANK 77/2 []"]


def test_bad_values_are_null_and_a_large_alias_is_found() -> None:
    talk = Talk()
    talk(MessageKind.NBIRTH, node_birth(0))
    talk(MessageKind.DBIRTH, device_birth(1, {LEVEL: math.nan}, first_alias=1 << 40), "TANK")
    (frame,) = talk.facts
    assert isinstance(frame, FrameArrived)
    assert math.isnan(frame.batch.value[0])
    assert frame.batch.code[0] == 5
    assert talk(MessageKind.DDATA, device_frame(2, [(1 << 40, 4.0)]), "TANK") == ["TANK [4.0]"]


def test_a_negative_integer_keeps_its_sign_by_the_type_its_birth_declared() -> None:
    talk = Talk()
    talk(MessageKind.NBIRTH, node_birth(0))
    born = [Metric(LEVEL, 1, T0_MS, DataType.INT16, -5)]
    assert talk(MessageKind.DBIRTH, encode_payload(T0_MS, 1, born), "TANK") == ["TANK [-5.0]"]
    said = talk(MessageKind.DDATA, encode_payload(T0_MS, 2, [Metric(None, 1, T0_MS, DataType.INT16, -7)]), "TANK")
    assert said == ["TANK [-7.0]"]


def test_blocks_and_node_facts_come_out_as_such(ours: Talk) -> None:
    body = block("E1", [Kept(70, 1, "TANK", ((LEVEL, 3.0),), T0_MS)])
    assert ours(MessageKind.NDATA, block_message(2, body)) == ["block"]
    assert ours.facts == [BlockArrived(body)]
    assert ours(MessageKind.NDATA, encode_payload(T0_MS, 3, [flag(SPOOL_FAULT, True)])) == ["Edge/Spool Fault=True"]


def test_commands_and_states_are_not_for_us(ours: Talk) -> None:
    assert ours(MessageKind.NCMD, node_birth(0)) == []
