"""Older copies put back: an edge's disk, a ledger, a whole core folder. What is lost by that is said, by number where
numbers can be known, and no number is ever used twice for two things."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core import LEDGER_NAME, LedgerReader
from tests.system.books import wait_deliveries
from tests.system.chain import Chain, running_chain, wait_until
from tests.system.oracle import Committed, Frame, committed, missing_samples, read_journal, read_log, sequence_faults

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

LEDGER_FILES = (LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm")
ENDLESS = "gateway restored: all from here to this birth that it does not list, end unknown"
FrameKey = tuple[str, int, int]


def frames_in(chain: Chain, ledger: Path | None = None) -> dict[FrameKey, Frame]:
    """Return every frame a ledger holds; by default that of the running core."""
    return _committed(chain, ledger or chain.core_folder / LEDGER_NAME).frames


def _committed(chain: Chain, ledger: Path) -> Committed:
    reader = LedgerReader.open(ledger)
    try:
        return committed(read_log(reader, chain.site), chain.site)
    finally:
        reader.close()


def more_frames(chain: Chain, count: int) -> None:
    """Wait until so many more frames are committed."""
    until = chain.heartbeat()["frames_committed"] + count
    wait_until(lambda: chain.heartbeat()["frames_committed"] >= until, f"{count} more frames")


def all_acknowledged(chain: Chain) -> None:
    """Wait until every edge has been told to forget something of its present live stream."""

    def forgot() -> bool:
        for name in chain.edges:
            status = chain.edge_status(name)
            live = [span for span in status["unfinished"] if span["stream"] == status["stream"]]
            others = len(status["unfinished"]) - len(live)
            if not status["live"] or others or (live and live[0]["first"] < 10):
                return False
        return True

    wait_until(forgot, "every edge has forgotten what it was acknowledged")


def loss_rows(chain: Chain) -> list[tuple[str, int, int, int, str]]:
    return [tuple(row) for row in chain.rows("SELECT node, stream, first, last, cause FROM loss LIMIT 1000")]  # type: ignore[misc]


def loss_alarms(chain: Chain, node: str) -> list[Mapping[str, object]]:
    """Return the facts of every LOSS alarm of a node."""
    bodies = chain.rows("SELECT body FROM alarm WHERE subject = ? LIMIT 100", (f"EDGE.{node}.LOSS",))
    return [json.loads(body)["facts"] for (body,) in bodies]


def notices_by_number(chain: Chain) -> dict[tuple[object, ...], set[tuple[object, ...]]]:
    """Return what each (receiver, ledger, lane, sequence) ever named at the platform."""
    named: dict[tuple[object, ...], set[tuple[object, ...]]] = defaultdict(set)
    for line in chain.received():
        if line["type"] != "heartbeat" and line["sequence"] is not None:
            key = (line["receiver"], line["ledger"], line["lane"], line["sequence"])
            named[key].add((line["id"], line["alarm"], line["revision"], line["transition"], line["state"]))
    return named


def put_back(chain: Chain, copy: Path, *, ledger_only: bool) -> None:
    """Let an older copy of core's folder take the place of what is there."""
    if ledger_only:
        for name in LEDGER_FILES:
            (chain.core_folder / name).unlink(missing_ok=True)
            if (copy / name).exists():
                shutil.copy(copy / name, chain.core_folder / name)
    else:
        shutil.rmtree(chain.core_folder)
        shutil.copytree(copy, chain.core_folder)


@pytest.mark.parametrize("ledger_only", [pytest.param(True, id="ledger"), pytest.param(False, id="whole-core-folder")])
def test_a_ledger_restored_from_an_older_copy_names_what_it_lost_and_repeats_no_number(
    tmp_path: Path, ledger_only: bool
) -> None:
    with running_chain(tmp_path / "chain") as chain:
        more_frames(chain, 60)
        chain.core.stop()
        older = chain.copy(chain.core_folder, "older")
        chain.core.start()
        chain.wait_healed()
        more_frames(chain, 90)
        all_acknowledged(chain)
        wait_deliveries(chain)
        chain.core.stop()
        newest = chain.copy(chain.core_folder, "newest")
        old_id = chain.heartbeat()["ledger"]
        put_back(chain, older, ledger_only=ledger_only)
        if ledger_only:
            refused_without_restored(chain)
        chain.core.start("--restored")
        chain.wait_healed()
        wait_until(lambda: all(loss_alarms(chain, node) for node in chain.edges), "both edges' losses are told")
        more_frames(chain, 60)
        wait_deliveries(chain)

        assert chain.heartbeat()["ledger"] != old_id
        before = frames_in(chain, newest / LEDGER_NAME)
        begun = list(dict.fromkeys((node, stream) for node, stream, _ in before))
        lost = before.keys() - frames_in(chain).keys()
        assert lost, "the copy was not older"
        rows = loss_rows(chain)
        named = {(node, stream, n) for node, stream, first, last, _ in rows for n in range(first, last + 1)}
        for node, stream, first, last, cause in rows:
            if (
                not last
            ):  # the copy knew this stream and not the next: nobody can tell its end any more, nor what followed
                assert cause == ENDLESS
                later = {key for key in begun[begun.index((node, stream)) + 1 :] if key[0] == node}
                named |= {key for key in lost if key[:2] in later or (key[:2] == (node, stream) and key[2] >= first)}
        assert lost <= named, f"lost without a word: {_ranges(lost - named)}; told {rows}"
        assert not named & frames_in(chain).keys(), "what is there is not lost"
        assert {cause for *_, cause in rows} <= {
            "gateway restored: acknowledged before, unknown now", "unknown predecessor: acknowledged before, unknown now",
            ENDLESS,
        }  # fmt: skip
        for node in chain.edges:
            told = " ".join(str(facts["what"]) for facts in loss_alarms(chain, node))
            for owner, stream, first, last, cause in rows:
                assert owner != node or f"{stream}:{first}-{last or '?'} {cause}" in told

        assert [(number, things) for number, things in notices_by_number(chain).items() if len(things) > 1] == []
        assert sequence_faults(chain.received()) == []
        ledgers = {line["ledger"] for line in chain.received() if line["sequence"] is not None}
        assert ledgers == {old_id, chain.heartbeat()["ledger"]}
        assert "CORE.REPLAY.DIFFERS" not in {row.step.tag for row in journal(chain)}


def refused_without_restored(chain: Chain) -> None:
    """A ledger older than a snapshot beside it must not be gone on with as if nothing had happened."""
    chain.core.start()
    assert chain.core.wait_end() == 2
    said = chain.core.last_lines(3)
    assert "older" in said
    assert "--restored" in said
    assert "Traceback" not in chain.core.last_lines()


def journal(chain: Chain):  # type: ignore[no-untyped-def]
    with chain.ledger() as reader:
        return read_journal(reader)


def _ranges(keys: set[FrameKey]) -> dict[tuple[str, int], tuple[int, int, int]]:
    by_stream: dict[tuple[str, int], list[int]] = defaultdict(list)
    for node, stream, number in keys:
        by_stream[node, stream].append(number)
    return {stream: (min(numbers), max(numbers), len(numbers)) for stream, numbers in by_stream.items()}


def test_an_edge_disk_restored_from_an_older_copy_is_told_and_reuses_no_number(tmp_path: Path) -> None:
    with running_chain(tmp_path / "chain") as chain:
        more_frames(chain, 40)
        edge = chain.edges["E1"]
        edge.kill()
        older = chain.copy(chain.edge_folder("E1"), "older")
        edge.start()
        chain.wait_healed()
        more_frames(chain, 60)
        all_acknowledged(chain)
        known_live = chain.edge_status("E1")["stream"]
        chain.broker.kill()  # from here on samples stand on the edge's disk alone
        wait_until(
            lambda: len([s for s in chain.edge_status("E1")["unfinished"] if s["last"] >= 10]) >= 2,
            "an outage's stream",
        )
        edge.kill()
        taken = chain.spool("E1")
        shutil.rmtree(chain.edge_folder("E1"))
        shutil.copytree(older, chain.edge_folder("E1"))
        chain.broker.start()
        edge.start()
        chain.wait_healed()
        wait_until(lambda: loss_alarms(chain, "E1"), "the restored disk is told")
        more_frames(chain, 40)

        with chain.ledger() as reader:
            # Two runs of one edge under one number would show as one frame with two contents here.
            found = committed(read_log(reader, chain.site), chain.site)
        lost = missing_samples(chain.site, "E1", taken, found)
        assert lost, "nothing was lost: the copy was not older"
        rows = loss_rows(chain)
        assert {node for node, *_ in rows} == {"E1"}
        assert any(stream == known_live and cause.startswith("edge restored") for _, stream, _, _, cause in rows)
        told = " ".join(str(facts["what"]) for facts in loss_alarms(chain, "E1"))
        assert str(known_live) in told
        assert "edge restored" in told
        assert loss_alarms(chain, "E2") == []
        streams = chain.rows("SELECT count(*), count(DISTINCT stream) FROM stream WHERE node = 'E1'")
        assert streams[0][0] == streams[0][1]
        wait_deliveries(chain)
        assert sequence_faults(chain.received()) == []


def test_an_edge_whose_data_folder_goes_while_it_runs_is_told_at_once_and_lives_on_with_it(tmp_path: Path) -> None:
    with running_chain(tmp_path / "chain") as chain:
        more_frames(chain, 40)
        all_acknowledged(chain)
        shutil.rmtree(chain.edge_folder("E1"))
        wait_until(lambda: chain.alarms_about("EDGE.E1.SPOOL"), "the gateway is told of the edge's disk")
        assert chain.edges["E1"].alive
        assert chain.alarms_about("EDGE.E2.SPOOL") == []
        (chain.edge_folder("E1") / "spool").mkdir(parents=True)
        status = chain.edge_folder("E1") / "status.json"
        wait_until(lambda: status.exists() and not chain.edge_status("E1")["spool_fault"], "its spool works again")
        more_frames(chain, 40)
        all_acknowledged(chain)
