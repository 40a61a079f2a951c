"""A restore: whole or not at all, ended at any step or not; and the core that starts on it is a new ledger's."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gateway.care import (
    DamagedBackupError,
    Disk,
    InUseError,
    NewerDataError,
    NotABackupError,
    Restored,
    TargetError,
    backup,
    backup_into_file,
    restore,
)
from gateway.core import Core, run_core
from gateway.core.entries import EntryKind, unpack_json
from gateway.core.errors import UnfinishedCareError
from gateway.core.ledger import Ledger
from gateway.core.reader import LedgerReader
from gateway.serve import ServeSettings, run_serve
from gateway.serve.errors import UnfinishedFolderError
from gateway.unfinished import unfinished
from tests.care.folders import LEDGER, LEDGER_ID, contents, ends_at, files, rewritten, steps_of, whole
from tests.gateway.field import LEVEL, Edge, site
from tests.gateway.test_ledger import batch
from tests.patience import GUARD_S
from wire import MemoryBroker, MemoryConnector, decode_command

NOW_MS = 1_795_000_000_000
NEW_ID = "f" * 32


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A data folder, a backup of it, and the same in one file."""
    folder = tmp_path_factory.mktemp("kept")
    data = whole(folder / "data")
    backup(data, folder / "backup", program="1", wall_ms=lambda: NOW_MS, room_bytes=0)
    backup_into_file(data, folder / "b.tar", disk=Disk(), program="1", wall_ms=lambda: NOW_MS, room_bytes=0)
    return data, folder / "backup", folder / "b.tar"


@pytest.fixture
def own(kept: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """A copy of the backup, to be spoilt."""
    return Path(shutil.copytree(kept[1], tmp_path / "own"))


def put(place: Path, data: Path, disk: Disk | None = None, **more: Any) -> Restored:
    return restore(place, data, wall_ms=lambda: NOW_MS, disk=disk, new_id=lambda: NEW_ID, **more)


def settled(data: Path) -> dict[str, bytes]:
    """The files of a data folder but for the ledger and locks."""
    found = files(data)
    return {path: body for path, body in found.items() if "ledger.sqlite3" not in path and not path.endswith(".lock")}


# -- what is there afterwards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [1, 2], ids=["folder", "file"])
def test_everything_is_back_under_a_new_ledger_id(kept: tuple[Path, Path, Path], tmp_path: Path, form: int) -> None:
    data, place = kept[0], kept[form]
    done = put(place, tmp_path / "data")
    assert (done.old_id, done.new_id, done.aside) == (LEDGER_ID, NEW_ID, None)
    listed = {one.path for one in done.listing.files}
    assert set(settled(tmp_path / "data")) == listed - {LEDGER}
    for path in listed - {LEDGER}:
        assert (tmp_path / "data" / path).read_bytes() == (data / path).read_bytes()
    before, after = contents(data / LEDGER), contents(tmp_path / "data" / LEDGER)
    for table in ("log", "transition", "alarm", "attempt", "stream", "loss", "tag"):
        assert after[table] == before[table]
    meta = dict(after["meta"])
    assert (meta["ledger_id"], meta["ancestor_id"], meta["ancestor_pos"]) == (NEW_ID, LEDGER_ID, str(done.listing.ledger.pos))
    assert not (tmp_path / "data" / ".restoring").exists()


def test_no_sequence_is_used_twice(kept: tuple[Path, Path, Path], tmp_path: Path) -> None:
    def used(path: Path) -> set[tuple[Any, ...]]:
        reader = LedgerReader.open(path)
        rows = reader.rows("SELECT ledger_id, receiver, lane, sequence FROM outbox")
        reader.close()
        assert len(rows) == len(set(rows)) > 0
        return set(rows)

    put(kept[1], tmp_path / "data")
    lost = Path(shutil.copytree(kept[0], tmp_path / "lost"))  # the ledger that was lost went on after the backup
    for data in (lost, tmp_path / "data"):
        ledger = Ledger(data / LEDGER, "PARK1")
        pos = ledger.reader.last_pos()
        ledger.commit([batch(pos + 1, "later", "and-later")])
        ledger.close()
    assert not used(lost / LEDGER) & used(tmp_path / "data" / LEDGER)


def test_a_segment_is_shared_and_what_is_written_again_is_not(kept: tuple[Path, Path, Path], tmp_path: Path) -> None:
    done = put(kept[1], tmp_path / "data")
    shared = {one.path for one in done.listing.files if (kept[1] / one.path).samefile(tmp_path / "data" / one.path)}
    assert shared == {path for path in (one.path for one in done.listing.files) if path.startswith(
        ("historian/samples/", "historian/rollups/", "historian/manifests/")
    )}  # fmt: skip


# -- what is there before -------------------------------------------------------------------------------------------


def test_a_folder_with_data_is_left_alone_unless_told_and_then_kept_aside(kept: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    (data / "edge").mkdir()
    before = files(data)
    with pytest.raises(TargetError, match="--replace"):
        put(kept[1], data)
    assert {path: body for path, body in files(data).items() if not path.endswith(".lock")} == before
    done = put(kept[1], data, replace=True)
    assert done.aside == data / f"before-restore-{NOW_MS}"
    aside = {path: body for path, body in files(done.aside).items() if not path.endswith(".lock")}
    assert aside == before
    assert (data / "edge").is_dir()


def test_the_present_segments_can_stay(kept: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    (data / "historian" / "evidence" / "2026-01.parquet").write_bytes(b"newer")
    with pytest.raises(TargetError, match="--replace too"):
        put(kept[1], tmp_path / "empty", keep_historian=True)
    done = put(kept[1], data, replace=True, keep_historian=True)
    assert (data / "historian" / "evidence" / "2026-01.parquet").exists()
    assert done.aside is not None
    assert sorted(path.name for path in done.aside.iterdir()) == ["core", "serve"]


@pytest.mark.parametrize("lock", ["core/core.lock", "serve/serve.lock", "historian/historian.lock", "care.lock"])
def test_nothing_is_restored_under_a_program_that_runs(kept: tuple[Path, Path, Path], tmp_path: Path, lock: str) -> None:
    data = whole(tmp_path / "data")
    with (data / lock).open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = files(data)
        with pytest.raises(InUseError, match="stop core and serve"):
            put(kept[1], data, replace=True)
        assert set(files(data)) - set(before) <= {"care.lock", "core/core.lock", "serve/serve.lock"}
    put(kept[1], data, replace=True)


# -- a backup that cannot be trusted --------------------------------------------------------------------------------


@pytest.mark.fault("F73")
@pytest.mark.parametrize("path", [LEDGER, "serve/tokens.json", "historian/kept_from.json"])
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"X"), "checksum differs", id="a changed byte"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes", id="cut short"),
        pytest.param(lambda path: path.unlink(), "No such file", id="gone"),
    ],
)
def test_a_tampered_backup_is_refused_by_the_files_name_and_nothing_changes(
    own: Path, tmp_path: Path, path: str, spoil: Callable[[Path], None], why: str
) -> None:
    data = whole(tmp_path / "data")
    before = files(data)
    spoil(own / path)
    with pytest.raises(DamagedBackupError, match=f"{path}.*{why}") as told:
        put(own, data, replace=True)
    assert path in told.value.message_zh
    assert {path: body for path, body in files(data).items() if not path.endswith(".lock")} == before


@pytest.mark.fault("F51")
@pytest.mark.parametrize("target", ["file", "folder", "whole"])
def test_a_link_in_a_backup_is_not_followed(own: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    if target == "file":
        body = (own / "serve" / "tokens.json").read_bytes()
        (tmp_path / "elsewhere" / "tokens.json").write_bytes(body)  # even if it holds the same
        (own / "serve" / "tokens.json").unlink()
        (own / "serve" / "tokens.json").symlink_to(tmp_path / "elsewhere" / "tokens.json")
    else:
        room = own / ("serve" if target == "folder" else "historian")
        shutil.move(room, tmp_path / "elsewhere" / "room")
        room.symlink_to(tmp_path / "elsewhere" / "room")
    with pytest.raises(DamagedBackupError, match=r"link|symbolic"):
        put(own, tmp_path / "data")
    assert not (tmp_path / "data" / "core").exists()


@pytest.mark.fault("F51")
@pytest.mark.parametrize("path", ["../../outside", "/tmp/outside", "core/../../outside", "core/core.lock"])
def test_a_listing_that_leads_out_is_refused(own: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").write_bytes(b"x")

    def lead_out(told: dict[str, Any]) -> None:
        told["files"][-1]["path"] = path

    rewritten(own / "backup.json", lead_out)
    with pytest.raises(NotABackupError, match="no path of a backup"):
        put(own, tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "own"]


def tar_of(place: Path, source: Path, *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(place, "w") as tar:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                tar.add(path, path.relative_to(source).as_posix())
        for entry in extra:
            tar.addfile(entry, BytesIO(b"x" * entry.size))
    return place


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return found


@pytest.mark.fault("F51")
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(entry("../outside"), id="a path that leads out"),
        pytest.param(entry("/tmp/outside"), id="an absolute path"),
        pytest.param(entry("core/x", tarfile.SYMTYPE, "/etc"), id="a link"),
        pytest.param(entry("core/x", tarfile.LNKTYPE, "core/ledger.sqlite3"), id="a hard link"),
        pytest.param(entry("core/x", tarfile.CHRTYPE), id="a device"),
        pytest.param(entry("core/ledger.sqlite3"), id="a file twice"),
        pytest.param(entry("serve/more.json"), id="a file that is not listed"),
    ],
)
def test_an_archive_with_anything_else_in_it_is_refused(own: Path, tmp_path: Path, more: tarfile.TarInfo) -> None:
    put(tar_of(tmp_path / "good.tar", own), tmp_path / "good")
    with pytest.raises(NotABackupError):
        put(tar_of(tmp_path / "evil.tar", own, more), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("body", [b"", b"no archive at all", b"\0" * 10_240], ids=["empty", "text", "zeros"])
def test_what_is_no_archive_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "b.tar").write_bytes(body)
    with pytest.raises(NotABackupError):
        put(tmp_path / "b.tar", tmp_path / "data")


def test_what_is_not_there_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(NotABackupError, match="no such"):
        put(tmp_path / "none", tmp_path / "data")
    with pytest.raises(NotABackupError, match=r"no backup\.json"):
        put(tmp_path, tmp_path / "data")


@pytest.mark.fault("F74")
@pytest.mark.parametrize(("part", "told"), [("ledger", "ledger's schema"), ("snapshot", "snapshots"), ("later", "later")])
def test_a_backup_of_a_newer_program_is_refused_with_both_versions(own: Path, tmp_path: Path, part: str, told: str) -> None:
    def newer(listing: dict[str, Any]) -> None:
        listing["versions"][part] = 77
        if part == "ledger":
            listing["ledger"]["schema"] = 77

    rewritten(own / "backup.json", newer)
    with pytest.raises(NewerDataError, match=f"{told} has version 77, this program knows versions up to"):
        put(own, tmp_path / "data")


@pytest.mark.fault("F74")
def test_a_backup_in_a_newer_format_is_refused_as_such(own: Path, tmp_path: Path) -> None:
    rewritten(own / "backup.json", lambda told: told.update(format=2))
    with pytest.raises(NewerDataError, match="the backup has version 2, this program knows versions up to 1"):
        put(own, tmp_path / "data")


def test_a_listing_of_another_ledger_is_found_out(own: Path, tmp_path: Path) -> None:
    rewritten(own / "backup.json", lambda told: told["ledger"].update(pos=10_000))
    with pytest.raises(DamagedBackupError, match="not the ledger that the listing describes"):
        put(own, tmp_path / "data")
    assert not (tmp_path / "data" / "core").exists()


# -- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)  # a process for every step
@pytest.mark.parametrize("form", [1, 2], ids=["folder", "file"])
def test_killed_at_any_step_the_folder_is_old_or_new_or_says_that_it_is_neither(
    kept: tuple[Path, Path, Path], tmp_path: Path, form: int
) -> None:
    place, data = kept[form], tmp_path / "data"
    before = whole(tmp_path / "before")
    old = contents(before / LEDGER)
    names = steps_of(lambda disk: put(place, Path(shutil.copytree(before, tmp_path / "first")), disk, replace=True))
    assert len(names) > 30
    expected = settled(tmp_path / "first")
    for number, name in enumerate(names, 1):
        shutil.copytree(before, data)
        assert ends_at(number, lambda disk: put(place, data, disk, replace=True)), name
        if unfinished(data) is None and not _renewed(data):
            assert contents(data / LEDGER) == old, name
        if form == 1 and not _finished(data):
            ends_at(number, lambda disk: put(place, data, disk, replace=True))  # and at the same step again
        if not _finished(data):
            put(place, data, replace=True)
        shutil.rmtree(data / ".restoring", ignore_errors=True)  # what its last step left
        assert settled(data) == expected, name
        rows = contents(data / LEDGER)
        meta = dict(rows["meta"])
        assert (meta["ledger_id"], meta["ancestor_id"]) == (NEW_ID, LEDGER_ID), name
        assert json.loads(meta["ancestry"]) == [[LEDGER_ID, int(meta["ancestor_pos"])]], "renewed once"
        aside = data / f"before-restore-{NOW_MS}"
        assert contents(aside / LEDGER) == old, name
        shutil.rmtree(data)


def _finished(data: Path) -> bool:
    return unfinished(data) is None and _renewed(data)


def _renewed(data: Path) -> bool:
    reader = LedgerReader.open(data / LEDGER)
    try:
        return reader.meta("ledger_id") == NEW_ID
    finally:
        reader.close()


@pytest.fixture
def half_done(kept: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """A data folder in which the ledger is new and the segments are old."""
    before = whole(tmp_path / "before")
    names = steps_of(lambda disk: put(kept[1], Path(shutil.copytree(before, tmp_path / "first")), disk, replace=True))
    data = Path(shutil.copytree(before, tmp_path / "half"))
    at = names.index("rename core to core", names.index("sync core")) + 4
    assert ends_at(at, lambda disk: put(kept[1], data, disk, replace=True))
    return data


@pytest.mark.fault("F74")
def test_neither_core_nor_serve_starts_on_half_a_restore(half_done: Path) -> None:
    async def start_core() -> None:
        await run_core(
            site(receivers=0), half_done, asyncio.Event(), connector=MemoryConnector(MemoryBroker()), secrets={}, base_dir=half_done
        )

    async def start_serve() -> None:
        await run_serve(site(receivers=0), half_done, asyncio.Event(), ServeSettings("127.0.0.1", 0))

    with pytest.raises(UnfinishedCareError, match="not finished; run the same `hazardgate restore` again"):
        asyncio.run(start_core())
    with pytest.raises(UnfinishedFolderError, match="restore"):
        asyncio.run(start_serve())


def test_once_the_renames_have_begun_only_the_same_backup_finishes_them(half_done: Path, own: Path) -> None:
    rewritten(own / "backup.json", lambda told: told.update(made_ms=5))
    with pytest.raises(TargetError, match="same --from"):
        put(own, half_done, replace=True)


def test_before_that_another_backup_may_be_taken_instead(kept: tuple[Path, Path, Path], own: Path, tmp_path: Path) -> None:
    rewritten(own / "backup.json", lambda told: told.update(made_ms=5))
    assert ends_at(20, lambda disk: put(kept[1], tmp_path / "data", disk))
    assert unfinished(tmp_path / "data") is not None
    assert put(own, tmp_path / "data").listing.made_ms == 5
    assert unfinished(tmp_path / "data") is None


def test_what_was_laid_for_another_backup_is_not_taken_over(kept: tuple[Path, Path, Path], own: Path, tmp_path: Path) -> None:
    def without_audit(told: dict[str, Any]) -> None:
        told["files"] = [one for one in told["files"] if one["path"] != "serve/audit.1.jsonl"]

    names = steps_of(lambda disk: put(kept[1], tmp_path / "first", disk))
    rewritten(own / "backup.json", without_audit)
    assert ends_at(names.index("upgrade the restored ledger") + 1, lambda disk: put(kept[1], tmp_path / "data", disk))
    put(own, tmp_path / "data")
    assert not (tmp_path / "data" / "serve" / "audit.1.jsonl").exists()


@pytest.mark.fault("F73")
def test_a_backup_that_is_damaged_when_the_restore_goes_on_is_refused_then(own: Path, tmp_path: Path) -> None:
    assert ends_at(12, lambda disk: put(own, tmp_path / "data", disk))
    path = next(path for path in sorted(own.glob("historian/samples/*/*")))
    body = path.read_bytes()
    path.unlink()
    path.write_bytes(body[:-1] + b"X")
    with pytest.raises(DamagedBackupError, match=r"historian/samples.*checksum"):
        put(own, tmp_path / "data")
    assert not (tmp_path / "data" / "core").exists()


# -- the core that starts on it -------------------------------------------------------------------------------------


class World:
    """A core on a restored folder and an edge that still holds what was not acknowledged."""

    def __init__(self, folder: Path, stream: int = 5_000) -> None:
        self.folder, self.edge, self.broker = folder, Edge(first_stream=stream), MemoryBroker()
        self.core: Core | None = None

    async def run(self) -> None:
        self.core = Core(site(), self.folder, MemoryConnector(self.broker), {"CITY0": "whsec_" + "A" * 40}, self.folder)
        stop = asyncio.Event()
        task = asyncio.ensure_future(self.core.run(stop))
        async with MemoryConnector(self.broker).connect("E1", None) as link:
            await link.subscribe([("spBv1.0/PARK1/NCMD/E1", 1)])

            async def acks() -> None:
                async for message in link.messages():
                    for stream, upto in decode_command(message.payload).acknowledged:
                        self.edge.acked(stream, upto)

            reading = asyncio.ensure_future(acks())
            async with asyncio.timeout(GUARD_S):
                while not self.core._source.connected:
                    await asyncio.sleep(0.01)
                for topic, payload in [*self.edge.born(), *self.edge.scan({LEVEL: 25.0})]:
                    await link.publish(topic, payload)
                while not self.edge.settled:
                    await asyncio.sleep(0.01)
            reading.cancel()
        stop.set()
        await task


def starts(folder: Path, after: int) -> list[bool]:
    """What the START entries after a position say of a restore."""
    reader = LedgerReader.open(folder / "ledger.sqlite3")
    try:
        return [unpack_json(entry.body)["restored"] for entry in reader.entries_after(after) if entry.kind is EntryKind.START]
    finally:
        reader.close()


def test_core_starts_evaluates_and_tells_its_log_once_that_it_was_restored(kept: tuple[Path, Path, Path], tmp_path: Path) -> None:
    done = put(kept[1], tmp_path / "data")
    folder, pos = tmp_path / "data" / "core", done.listing.ledger.pos
    world = World(folder)
    asyncio.run(world.run())
    assert world.core is not None
    assert world.core.recovered.differences == ()
    asyncio.run(World(folder, 6_000).run())
    assert starts(folder, pos) == [True, False]
    reader = LedgerReader.open(folder / "ledger.sqlite3")
    assert reader.meta("ledger_id") == NEW_ID
    raised = reader.rows("SELECT count(*) FROM transition WHERE pos > ? AND kind = 'raised'", (pos,))
    sequences = reader.rows("SELECT ledger_id, receiver, lane, sequence FROM outbox")
    reader.close()
    assert raised[0][0] >= 1
    assert len(set(sequences)) == len(sequences)


@pytest.mark.parametrize("told", [False, True], ids=["unsaid", "--restored"])
def test_a_core_that_ends_before_its_first_commit_leaves_that_to_the_next_and_the_id_is_not_renewed_again(
    kept: tuple[Path, Path, Path], tmp_path: Path, told: bool
) -> None:
    done = put(kept[1], tmp_path / "data")
    folder, pos = tmp_path / "data" / "core", done.listing.ledger.pos
    for _ in range(2):
        core = Core(site(receivers=0), folder, MemoryConnector(MemoryBroker()), {}, folder, restored=told)
        core.release()  # as a kill would
    assert starts(folder, pos) == []
    asyncio.run(World(folder).run())
    assert starts(folder, pos) == [True]
    reader = LedgerReader.open(folder / "ledger.sqlite3")
    assert (reader.meta("ledger_id"), reader.ancestry()) == (NEW_ID, ((LEDGER_ID, pos),))
    reader.close()
