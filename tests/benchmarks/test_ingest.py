"""B1's verdict from made-up measurements, and its load: frames made a hundred at a time are what an edge would have sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.b1_chain import DEVICES, LIMITS, NODES, TAGS, Ingested, site_mapping
from benchmarks.b1_durable_ingest import PER_S, judge
from benchmarks.b1_generator import STAMP_GROUPS, Node, groups_of, packet, template, text, varint
from benchmarks.b1_peers import Fed, bodies
from benchmarks.harness import spread
from benchmarks.stores import INFLUXD, VICTORIA
from config import SiteConfig
from edge.numbering import Numbering
from edge.session import Now
from wire import Message, decode_data, decode_usual, encode_data
from wire.mqtt_packets import Packets

NOW_MS = 1_790_000_000_000
DISK = spread([0.2, 0.3])


def ingested(**changes: Any) -> Ingested:
    whole = 60 * 250_000
    return replace(
        Ingested("nats", whole, whole, whole, whole, 60, 60, whole // 40, whole, 60.0, 60.0, 65.0, {"core": 30.0, "serve": 20.0}),
        **changes,
    )


def missed(*ours: Ingested) -> set[str]:
    return {name for name, held in judge(ours, [], DISK, [], 0.1).held.items() if not held}


def test_a_whole_run_that_is_fast_enough_holds() -> None:
    fed = [Fed(INFLUXD, 1_000_000, 5.0, 6.0, 0.5), Fed(VICTORIA, 1_000_000, 2.0, 2.0, 0.5)]
    found = judge([ingested(), ingested(broker="mosquitto")], fed, DISK, [], 0.1)
    assert found.holds
    assert found.ratios == {"ours_to_influxd": 1.25, "ours_to_victoria-metrics": 0.5}
    assert found.figures["cpu_s_per_million"] == {"core": 2.0, "serve": 1.333}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        pytest.param({"committed": 1}, {"whole"}, id="one sample was not committed"),
        pytest.param({"stored": 60 * 250_000 + 1}, {"whole"}, id="one sample was stored twice"),
        pytest.param({"stored": None}, {"whole"}, id="nothing was stored"),
        pytest.param({"acked": 0}, {"whole"}, id="nobody was told"),
        pytest.param({"alarms_found": 59}, {"whole"}, id="an excursion was not evaluated"),
        pytest.param({"acked_s": 60 * 250_000 / PER_S + 1, "stored_s": 80.0}, {"samples_per_s"}, id="too slow"),
        pytest.param({"stored_s": 90.0}, {"store_lag_s"}, id="sealing does not keep up"),
    ],
)
def test_each_part_of_the_goal_is_judged_by_itself(changes: dict[str, Any], what: set[str]) -> None:
    assert missed(ingested(**changes)) == what


def test_a_second_broker_that_loses_something_fails_the_run() -> None:
    assert missed(ingested(), ingested(broker="mosquitto", committed=0)) == {"whole"}


def test_a_peer_that_is_missing_has_no_ratio() -> None:
    assert judge([ingested()], [], DISK, ["InfluxDB 1.6: not installed here"], 0.1).ratios["ours_to_influxd"] is None


def test_the_site_has_a_thousand_tags_of_four_limits_on_five_edges() -> None:
    site = SiteConfig.model_validate(site_mapping())
    assert len(site.tags) == TAGS
    assert all(len(tag.limit_rows()) == len(LIMITS) for tag in site.tags)
    assert [len(edge.devices) for edge in site.edges] == [DEVICES // NODES] * NODES


def test_a_peer_gets_one_row_a_tag_with_value_and_quality() -> None:
    lines = bodies(1)[0].decode().splitlines()
    assert len(lines) == TAGS
    assert lines[0].startswith("samples,id=S000000.PRESSURE value=")
    assert lines[0].endswith(",quality=192i 1000000000000")


ALIASES = [np.arange(1, 41), np.arange(100, 140), np.arange(161, 201)]
TOPICS = [f"spBv1.0/G/DDATA/N/D{at}" for at in range(len(ALIASES))]


class Link:
    """What of a connection `Node.make` needs."""

    def __init__(self) -> None:
        self.waiting = bytearray()


def sent(link: Link) -> list[Message]:
    found = Packets().feed(bytes(link.waiting))
    assert all(isinstance(each, Message) for each in found)
    return [each for each in found if isinstance(each, Message)]


@settings(max_examples=30)
@given(
    number=st.integers(1, 2**21 + 10), seq=st.integers(0, 255), frames=st.integers(1, 100), stream=st.integers(1, 2**63 - 1)
)
def test_frames_made_together_are_what_an_edge_would_have_sent(number: int, seq: int, frames: int, stream: int) -> None:
    link, numbering = Link(), Numbering([0], 1, lambda: stream)
    node = Node("N", None, link, TOPICS, ALIASES, numbering, lambda: Now(0.0, NOW_MS), 1, number, 0, seq)  # type: ignore[arg-type]
    values = np.arange(frames * 40) / 8
    last_ms = dict.fromkeys(range(len(TOPICS)), 0)
    while node.number < number + frames:
        node.make(number + frames - node.number, values, alarm=False)
    found = sent(link)
    assert len(found) == frames
    for at, message in enumerate(found):
        mine, device = number + 1 + at, (number + 1 + at) % len(TOPICS)
        assert message.topic == TOPICS[device]
        read = decode_data(message.payload)
        assert (read.stream, read.sequence, read.seq) == (stream, mine, (seq + 1 + at) % 256)
        assert read.alias.tolist() == ALIASES[device].tolist()
        assert len(set(read.source_ms.tolist())) == 1
        assert last_ms[device] < int(read.source_ms[0]) <= NOW_MS + frames
        last_ms[device] = int(read.source_ms[0])
        again = encode_data(read.timestamp_ms, read.seq, stream, mine, read.alias, read.value, read.code, read.source_ms)
        assert again == message.payload
        assert decode_usual([message.payload]) != [None]
    assert node.samples == 40 * frames


def test_an_excursion_goes_over_and_back_in_two_frames_of_one_device() -> None:
    link = Link()
    node = Node("N", None, link, TOPICS, ALIASES, Numbering([0], 1, lambda: 7), lambda: Now(0.0, NOW_MS), 1, 1, 0, 1)  # type: ignore[arg-type]
    assert not node.make(3, np.full(120, 50.0), alarm=True)
    assert node.make(6, np.full(240, 50.0), alarm=True)
    over = [float(decode_data(message.payload).value.max()) for message in sent(link)]
    assert over == [50.0] * 3 + [90.0] + [50.0] * 5


@given(st.lists(st.integers(2**35, 2**42 - 1), min_size=1))
def test_groups_are_those_of_a_varint(numbers: list[int]) -> None:
    assert [bytes(row) for row in groups_of(np.array(numbers), STAMP_GROUPS)] == [varint(number) for number in numbers]


@pytest.mark.parametrize("number_width", [1, 2, 3, 9])
@pytest.mark.parametrize("seq_width", [1, 2])
def test_a_template_knows_where_everything_stands(number_width: int, seq_width: int) -> None:
    shape = template("t", np.array([1, 2, 300]), 9, number_width, seq_width, NOW_MS)
    assert len(shape.values) == 3
    assert len(shape.stamps) == 3 + 3  # the message's own, and those of the two marks
    assert (len(shape.number), len(shape.seq)) == (number_width, seq_width)
    assert bytes(shape.packet).startswith(packet(0x30, text("t") + b"x" * 400)[:1])
