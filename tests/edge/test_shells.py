"""What stands around the edge's cores: clock, small files, the lock, a disk that fails under a running edge."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edge
from edge import DataFolderError, DataFolderInUseError, read_spool
from edge.clock import EARLIEST_MS, EdgeClock
from edge.disk import OsDisk
from edge.files import data_folder_lock, read_number, replace_json
from tests.edge.fakes import START_MS, virtual
from tests.edge.test_uplink import site_at
from wire import SPOOL_FAULT, MessageKind, decode_data


class Clocks:
    """A wall clock and a monotonic one to turn by hand."""

    def __init__(self, wall_ms: int) -> None:
        self.wall_ms, self.s = wall_ms, 50.0

    def clock(self, saved_ms: int = 0) -> EdgeClock:
        return EdgeClock(lambda: self.wall_ms, lambda: self.s, saved_ms)

    def pass_s(self, seconds: float, wall_ms: int | None = None) -> None:
        self.s += seconds
        self.wall_ms += round(seconds * 1000) if wall_ms is None else wall_ms


def test_a_clock_that_runs_evenly_or_is_slewed_has_no_steps() -> None:
    clocks = Clocks(START_MS)
    clock = clocks.clock(saved_ms=START_MS - 5)
    for slew in (0, 900, -900, 0):
        clocks.pass_s(10, 10_000 + slew)
        assert clock.step() == 0
    assert (clock.synced, clock.offset_ms, clock.now_ms()) == (True, 0, clocks.wall_ms)


@pytest.mark.fault("F27")
@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000, 1_001])
def test_a_step_is_reported_once_and_followed(jump_ms: int) -> None:
    clocks = Clocks(START_MS)
    clock = clocks.clock()
    clocks.pass_s(1, 1000 + jump_ms)
    assert clock.step() == jump_ms
    assert clock.step() == 0
    assert clock.now_ms() == START_MS + 1000 + jump_ms


@pytest.mark.fault("F28")
@pytest.mark.parametrize("saved_ms", [0, START_MS], ids=["never saved", "saved"])
def test_a_clock_without_battery_starts_no_earlier_than_saved_and_takes_utc_once(saved_ms: int) -> None:
    clocks = Clocks(5_000)
    clock = clocks.clock(saved_ms)
    assert clock.now_ms() == max(saved_ms, EARLIEST_MS)
    assert not clock.synced
    clocks.pass_s(3)
    utc_ms = START_MS + 86_400_000
    clock.host_time(utc_ms)
    assert (clock.synced, clock.now_ms()) == (True, utc_ms)
    assert clock.step() == utc_ms - max(saved_ms, EARLIEST_MS) - 3_000
    assert clock.offset_ms == utc_ms - clocks.wall_ms, "the correction is kept"
    clock.host_time(utc_ms + 10_000_000)
    assert clock.now_ms() == utc_ms, "a synced clock listens to nobody"


@pytest.mark.fault("F28")
def test_a_time_server_that_comes_later_ends_the_correction_instead_of_adding_to_it() -> None:
    clocks = Clocks(5_000)
    clock = clocks.clock(START_MS)
    clocks.pass_s(10, START_MS + 60_000 - 5_000)  # set from 1970 to the true time
    assert clock.step() == 50_000
    assert (clock.now_ms(), clock.offset_ms, clock.synced) == (START_MS + 60_000, 0, True)


def test_a_step_from_one_wrong_time_to_another_changes_nothing() -> None:
    clocks = Clocks(5_000)
    clock = clocks.clock(START_MS)
    clocks.pass_s(10, 900_000)
    assert clock.step() == 0
    assert (clock.now_ms(), clock.synced) == (START_MS + 10_000, False)


@pytest.mark.fault("F54")
def test_small_files_are_replaced_whole_and_bad_ones_count_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    assert read_number(path, "bdseq", -1) == -1
    replace_json(path, {"bdseq": 7}, durable=True)
    assert read_number(path, "bdseq", -1) == 7
    assert path.stat().st_mode & 0o077 == 0
    hostile = (b"[" * 100_000, b'{"bdseq":1,"bdseq":2}', b'{"bdseq":' + b"9" * 200 + b"}", b'{"bdseq":1,"x":NaN}')
    for junk in (b"", b"{", b"[1]", b'{"bdseq":true}', b'{"bdseq":"7"}', b"\xff\xfe", *hostile):
        path.write_bytes(junk)
        assert read_number(path, "bdseq", -1) == -1


def test_two_edges_cannot_share_a_data_folder_and_the_second_names_the_first(tmp_path: Path) -> None:
    named = f"in use by the edge process {os.getpid()}; stop it first"
    with data_folder_lock(tmp_path), pytest.raises(DataFolderInUseError, match=named), data_folder_lock(tmp_path):
        pass
    with data_folder_lock(tmp_path):  # given back with the first
        pass


def test_a_second_edge_on_the_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            await asyncio.sleep(1)
            first = site.edge
            with pytest.raises(DataFolderInUseError):
                await site.start_edge()
            site.edge = first
            await site.stop_edge()

    virtual(scenario)


@pytest.mark.fault("F72")
def test_a_disk_that_fails_under_a_running_edge_costs_receipts_and_no_live_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = False
    fdatasync = os.fdatasync

    def sync(descriptor: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        fdatasync(descriptor)

    monkeypatch.setattr("edge.disk.os.fdatasync", sync)

    async def scenario() -> None:
        nonlocal broken
        async with site_at(tmp_path) as site:
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(5)
            broken = True
            await site.sample(20, 10)
            assert "Input/output error" in site.status()["spool_fault"]
            unmarked = [payload for payload in site.gateway.of_kind(MessageKind.DDATA)
                        if not any(metric.name for metric in payload.metrics)]
            assert len(unmarked) >= 17, "live goes on"
            faults = [metric.value for payload in site.gateway.of_kind(MessageKind.NDATA)
                      for metric in payload.metrics if metric.name == SPOOL_FAULT]
            assert faults == [True]
            broken = False
            await site.sample(40, 40)
            assert site.status()["spool_fault"] == ""
            await asyncio.sleep(5)
            status = site.status()
            assert status["unfinished"] == []
            assert status["samples_taken"] == status["samples_acked"]
            assert not any(book.intervals for book in site.gateway.books.values())
            await site.stop_edge()

    virtual(scenario)


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            (tmp_path / "edge" / "status.json").mkdir(parents=True)
            site.start_edge()
            site.start_gateway()
            await asyncio.sleep(5)
            await site.sample(5)
            await site.stop_edge()
            assert site.missing() == []

    virtual(scenario)


_WRITER = """
    import sys, random
    from pathlib import Path
    from edge.disk import OsDisk
    from edge.recovery import open_spool
    from tests.edge.fakes import START_MS, scan_of, small_numbering, small_table
    table = small_table()
    spool = open_spool(OsDisk(Path(sys.argv[1])), "E1", table, 10**9)
    numbering = small_numbering(table, int(sys.argv[2]), spool.newest())
    now_s, count = 0.0, 0
    while True:
        for _ in range(random.Random(count).randrange(1, 20)):
            count += 1
            spool.append(numbering.number(scan_of(table, 0, [count % 65536, count % 7], START_MS + count)))
        assert spool.sync(now_s)
        print(numbering.stream, numbering.last, flush=True)
        now_s += 7.0
        spool.tend(now_s)
"""


@pytest.mark.system
@pytest.mark.parametrize("seed", range(2))
def test_what_a_killed_process_had_promised_is_on_its_disk(tmp_path: Path, seed: int) -> None:
    for run in range(1, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_WRITER), str(tmp_path), str(run)],
            stdout=subprocess.PIPE, text=True, cwd=Path(edge.__file__).parent.parent,
        )
        assert process.stdout is not None
        promised: list[str] = []
        for line in process.stdout:
            promised.append(line)
            if len(promised) >= 20 + 13 * seed + 5 * run:
                break
        process.send_signal(signal.SIGKILL)
        promised += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        complete = [line.split() for line in promised if len(line.split()) == 2]
        stream, last = max((int(stream), int(last)) for stream, last in complete)
        there = {(each.sequence, each.tag): each.bits for each in read_spool(tmp_path) if each.stream == stream}
        for number in range(1, last + 1):
            assert there[number, "T1.P1"] == number % 65536
            assert there[number, "T1.P2"] == number % 7


def test_the_packages_public_face() -> None:
    assert edge.__all__ == [
        "AppendFile", "DataFolderError", "DataFolderInUseError", "Disk", "DiskThread", "EdgeError", "Field",
        "JournalReader", "Ports", "Scan", "Sink", "SpoolFormatError", "SpooledFrame", "SpooledSample",
        "connector_for", "read_spool", "replace_json", "run_edge",
    ]
    for name in edge.__all__:
        assert hasattr(edge, name)


def test_an_os_disk_reads_back_what_it_wrote(tmp_path: Path) -> None:
    disk = OsDisk(tmp_path / "made" / "here")
    file = disk.create("a")
    file.write(b"0123456789")
    file.sync()
    file.close()
    file.close()
    with pytest.raises(FileExistsError):
        disk.create("a")
    assert disk.read("a", 3, 4) == b"3456"
    assert disk.read("a", 8, 40) == b"89"
    disk.truncate("a", 5)
    disk.rename("a", "b")
    disk.sync_folder()
    assert (disk.names(), disk.size("b")) == (["b"], 5)
    disk.unlink("b")
    disk.unlink("b")
    assert disk.names() == []


def test_status_has_the_members_that_others_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            site.start_edge()
            await asyncio.sleep(1)
            await site.sample(2)
            await asyncio.sleep(1)
            status: dict[str, Any] = site.status()
            assert status.keys() >= {
                "edge", "samples_taken", "samples_acked", "frames_taken", "unfinished", "polls", "polls_failed",
                "connected", "stream", "pid", "at_ms",
            }
            (span,) = status["unfinished"]
            assert (span["stream"], span["first"], span["last"]) == (status["stream"], 1, 3)
            assert json.dumps(status)

    virtual(scenario)


def test_decoding_a_frame_without_marks_gives_stream_zero() -> None:
    from tests.edge.test_session import Dialogue

    dialogue = Dialogue().live()
    dialogue.session.spool_state(True, dialogue.now)
    (command,) = dialogue.scan(0, 5).commands
    columns = decode_data(command.payload)  # type: ignore[union-attr]
    assert (columns.stream, columns.sequence, columns.value.tolist()) == (0, 0, [0.5])


def _file_in_the_way(data_dir: Path) -> None:
    data_dir.write_text("not a folder")


def _file_above(data_dir: Path) -> None:
    data_dir.parent.rmdir()
    data_dir.parent.write_text("not a folder")


def _spool_is_a_file(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "spool").write_text("not a folder")


@pytest.mark.parametrize(
    ("spoil", "at"),
    [
        pytest.param(_file_in_the_way, "edge", id="the data folder is a file"),
        pytest.param(_file_above, "edge", id="a folder above it is a file"),
        pytest.param(_spool_is_a_file, "edge/spool", id="the spool folder is a file"),
    ],
)
def test_a_data_path_that_is_no_folder_is_refused_with_its_path_and_the_next_step(
    tmp_path: Path, spoil: Callable[[Path], None], at: str
) -> None:
    above = tmp_path / "above"
    above.mkdir()

    async def scenario() -> None:
        async with site_at(above) as site:
            spoil(site.data_dir)
            with pytest.raises(DataFolderError, match=re.escape(str(above / at))) as caught:
                await site.start_edge()
            assert caught.value.folder == above / at
            assert "is a file" in str(caught.value)
            assert "--data" in str(caught.value)

    virtual(scenario)


@pytest.mark.parametrize("path", ["edge.lock", "spool/000000000001.journal"])
@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_data_folder_that_cannot_be_opened_is_refused_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, error: int
) -> None:
    refused = tmp_path / "edge" / path
    refused.parent.mkdir(parents=True)
    if path.startswith("spool"):
        refused.write_bytes(b"")
    opened = os.open
    spool_read = OsDisk.read

    def refusing(name: Any, *args: Any) -> int:
        if Path(name) == refused:
            raise OSError(error, os.strerror(error), str(name))
        return opened(name, *args)

    def read(disk: OsDisk, name: str, *args: Any) -> bytes:
        if disk.folder / name == refused:
            raise OSError(error, os.strerror(error), str(refused))
        return spool_read(disk, name, *args)

    monkeypatch.setattr("edge.files.os.open", refusing)
    monkeypatch.setattr(OsDisk, "read", read)

    async def scenario() -> None:
        async with site_at(tmp_path) as site:
            with pytest.raises(DataFolderError, match=os.strerror(error)) as caught:
                await site.start_edge()
            assert str(caught.value.folder) in str(caught.value)
            assert isinstance(caught.value, edge.EdgeError)

    virtual(scenario)


def test_systemd_hears_from_an_edge_as_long_as_its_loop_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[float, str]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr("edge.app.notify_systemd", lambda state: said.append((loop.time(), state)))
        async with site_at(tmp_path) as site:
            site.start_edge()
            await asyncio.sleep(20)
            await site.stop_edge()

    virtual(scenario)
    assert said[0][1] == "READY=1"
    fed = [at for at, state in said if state == "WATCHDOG=1"]
    assert len(fed) >= 8
    assert max(later - earlier for earlier, later in itertools.pairwise(fed)) <= 2.5
