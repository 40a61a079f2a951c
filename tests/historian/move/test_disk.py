"""A disk that refuses while a file is imported or exported: one sentence that names the place and the next step, and nothing aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from gateway.historian.export import ExportError
from gateway.historian.export_file import write_export
from gateway.historian.export_parquet import ParquetExport
from gateway.historian.load import LoadError
from gateway.historian.load_stage import Stage
from gateway.historian.memory import MemoryHistorian
from tests.historian.move.samples import SHANGHAI, many, order
from tests.historian.move.test_load import LONG, MID, A, Kept, loaded

CSV = f"when,point,value\r\n2025-10-09 08:00:00,TI-1,{MID[A]}\r\n"


def test_a_full_disk_is_one_sentence_in_both_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise duckdb.IOException("IO Error: Could not write all bytes\nno space left on device")

    monkeypatch.setattr(Stage, "add", full)
    kept = Kept()
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path, CSV, LONG, kept)
    assert not kept.parts
    for told in (str(caught.value), caught.value.message_zh):
        assert str(tmp_path) in told
        assert "Could not write all bytes" in told
        assert "\n" not in told
    assert "free some space" in str(caught.value)
    assert "请腾出空间" in caught.value.message_zh
    assert not [each for each in tmp_path.iterdir() if each.name.startswith("import-")]


def test_a_disk_that_fills_while_parquet_is_exported_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    store, path = MemoryHistorian(), tmp_path / "out.parquet"
    store.write(many(["A.X"], 100))
    for step in ("add", "finish"):
        with pytest.MonkeyPatch.context() as patch:
            writer = ParquetExport(tmp_path / "aside", SHANGHAI)
            patch.setattr(writer, "_folder", tmp_path / "not" / "there")
            patch.setattr("gateway.historian.export_parquet.PART_ROWS", 1 if step == "add" else 1_000)
            patch.setattr("gateway.historian.export_file._writer", lambda *_, made=writer, **__: made)
            with pytest.raises(ExportError) as caught:
                write_export(store, order(["A.X"]), path)
        for told in (str(caught.value), caught.value.message_zh):
            assert str(tmp_path / "not" / "there") in told
            assert "\n" not in told
        assert list(tmp_path.iterdir()) == []
