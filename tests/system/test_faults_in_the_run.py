"""One running chain, and one fault after the other; at the end the books must still be whole."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.system.books import nothing_missing, read_books, settle, stop_edges, wait_deliveries
from tests.system.chain import CLI, ROOT, Chain, refused, running_chain, wait_until
from wire import (
    BDSEQ,
    CLOCK_SYNCED,
    PAYLOAD_LIMITS,
    AioMqttConnector,
    BrokerAddress,
    DataType,
    Message,
    Metric,
    decode_data,
    encode_payload,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

COMM = 1  # reason of a BAD code


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with running_chain(tmp_path_factory.mktemp("run") / "chain") as running:
        yield running


@pytest.fixture(autouse=True)
def _healed(chain: Chain) -> None:
    chain.wait_healed()


def newest_codes(chain: Chain, after_pos: int = 0) -> dict[str, int]:
    """Return every tag's newest quality code among live frames after a log position."""
    codes: dict[str, int] = {}
    for entry in read_books(chain).log:
        for frame in entry.frames if entry.pos > after_pos and entry.kind == "F" else ():
            for tag, _, code, _ in frame.samples:
                codes[chain.site.tags[tag].id] = code
    return codes


def last_pos(chain: Chain) -> int:
    return int(chain.rows("SELECT max(pos) FROM log")[0][0])


@pytest.mark.fault("F18")
def test_instruments_that_stop_answering_become_bad_hold_their_alarms_and_come_back(chain: Chain) -> None:
    """A frozen process keeps its connections: to the edge that is a peer whose power was cut."""
    chain.plant.freeze()
    frozen_pos = last_pos(chain)
    try:
        tags = {tag.id for tag in chain.site.tags}

        def all_bad() -> bool:
            codes = newest_codes(chain, frozen_pos)
            return codes.keys() == tags and set(codes.values()) == {COMM}

        wait_until(all_bad, "every tag is BAD for want of an answer", every_s=0.1)  # within three polls: tests/edge
        bad_pos = last_pos(chain)
        wait_until(lambda: last_pos(chain) > bad_pos, "core works on")
        fell = [
            row.step for row in read_books(chain).journal
            if row.category == "process" and row.step.kind == "returned" and not row.late
            and chain.rows("SELECT pos > ? FROM transition WHERE id = ?", (bad_pos, row.id))[0][0]
        ]  # fmt: skip
        assert fell == [], "silence lowered a level"
    finally:
        chain.plant.thaw()
    thawed_pos = last_pos(chain)

    def all_good() -> bool:
        codes = newest_codes(chain, thawed_pos)
        return codes.keys() == tags and sum(code >= 64 for code in codes.values()) >= len(tags) - 3  # a NaN now and then

    wait_until(all_good, "every instrument is read again", every_s=0.2)


@pytest.mark.fault("F30")
@pytest.mark.fault("F25")
def test_a_broker_killed_for_seconds_costs_nothing_and_its_excursions_become_dated_records(chain: Chain) -> None:
    late_before = chain.rows("SELECT count(*) FROM transition WHERE late = 1")[0][0]
    streams = {name: chain.edge_status(name)["stream"] for name in chain.edges}
    chain.broker.kill()
    killed_ms = time.time() * 1000

    def kept() -> bool:
        return all(
            any(span["stream"] != streams[name] and span["last"] >= 40 for span in chain.edge_status(name)["unfinished"])
            for name in chain.edges
        )

    wait_until(kept, "both edges keep what nobody takes")
    chain.broker.start()
    back_ms = time.time() * 1000
    chain.wait_healed()  # within 2 s: tests/edge/test_uplink.py
    wait_until(
        lambda: chain.rows("SELECT count(*) FROM transition WHERE late = 1")[0][0] > late_before, "history is run"
    )
    settle(chain)
    late = [row for row in read_books(chain).journal if row.late and killed_ms - 500 <= row.step.at_ms <= back_ms + 5_000]
    assert late, "an outage of several seconds on this site holds an excursion"
    wait_deliveries(chain)
    told = {line["alarm"] for line in chain.received() if line["late"]}
    assert {row.alarm_id for row in late} <= told


@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    "failure",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 503, "retry_after": 3}, id="503-retry-after"),
        pytest.param({"status": 429, "retry_after": 3}, id="429-retry-after"),
    ],
)
def test_a_receiver_that_fails_gets_every_notice_again(chain: Chain, failure: dict[str, int]) -> None:
    """PARK wants red and orange alone; blue and yellow would wait for minutes after a second refusal."""
    attempts_before = chain.rows("SELECT coalesce(max(row), 0) FROM attempt")[0][0]
    chain.platform_control({"fail": {**failure, "for_s": 600, "receiver": "PARK"}})

    def failed_so_far() -> set[str]:
        rows = chain.rows(
            "SELECT notice_id FROM attempt WHERE row > ? AND status = ? LIMIT 10000", (attempts_before, failure["status"])
        )
        return {row[0] for row in rows}

    wait_until(failed_so_far, "the receiver has refused something")
    chain.platform_control({"fail": None})
    failed = failed_so_far()

    def through() -> bool:
        left = chain.rows("SELECT notice_id FROM outbox WHERE state <> 'accepted' LIMIT 100000")
        return not {row[0] for row in left} & failed

    wait_until(through, "what was refused is accepted")
    if "retry_after" in failure:
        at: dict[str, list[int]] = defaultdict(list)
        for notice, at_ms in chain.rows(
            "SELECT notice_id, at_ms FROM attempt WHERE row > ? ORDER BY row LIMIT 100000", (attempts_before,)
        ):
            at[notice].append(at_ms)
        gaps = [second - first for notice in failed for first, second in pairwise(at[notice])]
        assert gaps
        assert min(gaps) >= failure["retry_after"] * 1000 - 100


@pytest.mark.fault("F23")
@pytest.mark.fault("F26")
def test_a_message_that_comes_twice_counts_once_and_a_broken_sequence_asks_for_a_rebirth(chain: Chain) -> None:
    """Messages of a live session again word for word, a death of another session, and one far ahead in the sequence."""
    births_before = chain.rows("SELECT count(*) FROM log WHERE kind = 'N' AND node = 'E1'")[0][0]
    duplicates_before, pos_before = chain.heartbeat()["duplicates_dropped"], last_pos(chain)
    connector = AioMqttConnector(BrokerAddress("127.0.0.1", chain.broker.port))

    async def repeat() -> None:
        async with asyncio.timeout(60), connector.connect("hazardgate-test-repeater", None) as link:
            await link.subscribe([("spBv1.0/RESTLESS/DDATA/E1/#", 0)])
            seen: list[Message] = []
            async for message in link.messages():
                seen.append(message)
                if len(seen) == 5:
                    break
            for message in seen:
                await link.publish(message.topic, message.payload)
            newest = decode_data(seen[-1].payload, PAYLOAD_LIMITS)
            ahead = (int(newest.seq or 0) + 100) % 256
            synced = Metric(CLOCK_SYNCED, datatype=DataType.BOOLEAN, value=True)
            death = Metric(BDSEQ, datatype=DataType.INT64, value=255)
            await link.publish("spBv1.0/RESTLESS/NDEATH/E1", encode_payload(newest.timestamp_ms, None, [death]))
            await link.publish("spBv1.0/RESTLESS/NDATA/E1", encode_payload(newest.timestamp_ms, ahead, [synced]))

    asyncio.run(repeat())
    wait_until(
        lambda: chain.rows("SELECT count(*) FROM log WHERE kind = 'N' AND node = 'E1'")[0][0] > births_before,
        "a hole in the sequence leads to a rebirth",
    )
    chain.wait_healed()
    wait_until(lambda: chain.heartbeat()["duplicates_dropped"] >= duplicates_before + 5, "every message that came again is counted")
    deaths = chain.rows("SELECT count(*) FROM log WHERE kind = 'D' AND node = 'E1' AND pos > ?", (pos_before,))
    assert deaths == [(0,)], "the death of another session ended this one"
    books = settle(chain)  # stored once and evaluated once: `committed` and `judge` see to it
    assert books.losses == []
    assert len({row.id for row in books.journal}) == len(books.journal)


@pytest.mark.fault("F68")
def test_a_second_process_on_one_data_folder_is_refused_and_names_the_first(chain: Chain) -> None:
    beat = chain.heartbeat()
    said = refused(["core", str(chain.site_file), "--data", str(chain.folder)], chain.environment)
    assert str(chain.core.pid) in said
    assert str(chain.core_folder) in said
    edge_file = chain.site_file.with_name("E1.yaml")
    said = refused(["edge", "run", str(edge_file), "--data", str(chain.edge_folder("E1"))])
    assert str(chain.edges["E1"].pid) in said
    wait_until(lambda: chain.heartbeat()["frames_committed"] > beat["frames_committed"] + 20, "the first core works on")
    assert chain.heartbeat()["pid"] == chain.core.pid


def test_acts_of_people_survive_a_killed_core(chain: Chain) -> None:
    """An acknowledgement that was answered is in the journal, whatever happens a moment later."""
    alarm = chain.rows("SELECT id FROM alarm WHERE state = 'ACTIVE_UNACKED' ORDER BY start_ms LIMIT 1")[0][0]
    command = [*CLI, "ack", alarm, "--actor", "Zhang San", "--data", str(chain.folder), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    chain.core.kill()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["alarm"]["acked_by"] == "Zhang San"
    chain.core.start()
    chain.wait_healed()
    body = json.loads(chain.rows("SELECT body FROM alarm WHERE id = ?", (alarm,))[0][0])
    assert body["acked_by"] == "Zhang San"


def test_after_all_that_nothing_is_missing(chain: Chain) -> None:
    chain.platform_control({"fail": None})
    stop_edges(chain)
    books = settle(chain)
    chain.core.stop()
    chain.plant.stop()
    nothing_missing(chain, books, {})
