"""What keeps serve from starting, and what does not."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from pathlib import Path
from typing import Any

import apsw
import pytest

from cli.errors_zh import sentence
from gateway.serve import SERVE_FOLDER, WHERE_NAME, Role, ServeError, ServeSettings, TokenStore, run_serve
from tests.care.folders import LEDGER, whole
from tests.gateway.field import site
from tests.patience import GUARD_S
from tests.serve.processes import now_ms


def refused(data: Path) -> str:
    """What both languages say; serve has touched nothing."""
    before = sorted(path for path in data.rglob("*") if path.is_file()) if data.exists() else []
    starting = asyncio.wait_for(run_serve(site(), data, asyncio.Event(), ServeSettings(port=0)), 20)  # it may start after all
    with pytest.raises(ServeError) as caught:
        asyncio.run(starting)
    after = sorted(path for path in data.rglob("*") if path.is_file()) if data.exists() else []
    strange = {path.name for path in set(after) - set(before)} - {"ledger.sqlite3-wal", "ledger.sqlite3-shm"}
    assert strange <= {"serve.lock"}, strange
    chinese = sentence(caught.value)
    assert any("\u4e00" <= char <= "\u9fff" for char in chinese)
    assert chinese != str(caught.value)
    return str(caught.value)


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_a_folder_on_which_no_core_has_run_is_another_slip(tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    told = refused(tmp_path / "wrong")
    assert told.startswith(f"{tmp_path / 'wrong'}: holds no core/")
    assert "--data" in told
    assert "--wait" in told
    assert not list((tmp_path / "wrong").iterdir()), "nothing is made there"
    started(tmp_path / "wrong", wait_for_core=True)


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    db = apsw.Connection(str(data / LEDGER))
    db.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    db.close()
    assert "version 99" in refused(data)


def test_a_manifest_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    data = whole(tmp_path / "data")
    path = sorted((data / "historian" / "manifests").iterdir())[-1]
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 7}))
    assert "version 7" in refused(data)


def test_tokens_of_a_newer_program_are_not_to_be_made_anew(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    store = TokenStore(tmp_path / SERVE_FOLDER, now_ms)
    store.new("li", Role.VIEWER, 1)
    path = tmp_path / SERVE_FOLDER / "tokens.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    told = refused(tmp_path)
    assert "leave the file as it is" in told
    assert "new tokens" not in told


def test_a_damaged_ledger_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / LEDGER).write_bytes(b"torn" * 1000)
    started(tmp_path)


def test_a_full_disk_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = Path.write_text

    def full(self: Path, *rest: Any, **more: Any) -> int:
        if self.name == "serve.tmp":
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, *rest, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with caplog.at_level(logging.INFO):
        started(tmp_path, wait_for_core=True)
    (warning,) = [record.getMessage() for record in caplog.records if WHERE_NAME in record.getMessage()]
    assert "No space left on device" in warning
    assert "http://127.0.0.1:" in caplog.text, "the address is in the log"


def started(data: Path, *, wait_for_core: bool = False) -> None:
    """Serve runs until it is asked to stop, and ends in good order."""

    async def story() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, stop.set)
        async with asyncio.timeout(GUARD_S):
            await run_serve(site(), data, stop, ServeSettings(port=0), wait_for_core=wait_for_core)

    asyncio.run(story())
