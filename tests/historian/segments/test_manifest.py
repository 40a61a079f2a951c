"""A manifest says what was written, and nothing that was changed since is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.historian.segments.folder import SegmentFolder
from gateway.historian.segments.manifest import DayFile, Link, Manifest, ManifestError, combined, parse_manifest
from gateway.historian.segments.names import Stem

SHA = "ab" * 32
FILE = DayFile("2025-06-16", 3, 7, 100, SHA, 50, SHA, 5, 9, "2025-06-16")
SEAL = Manifest(Stem("led", 1, 9, "seal"), 1000, 3, 7, "", (FILE,))
PACK = Manifest(
    Stem("led", 1, 20, "pack"), 1000, 3, 7, "", (FILE,), (Link(1, 9, SHA, 3, 7), Link(10, 20, SHA, 2, 11)), 1, 5, 1, 6
)
LOAD = Manifest(Stem("old", 4, 4, "load"), 1000, 3, 7, SHA, (FILE,))


@pytest.mark.parametrize("manifest", [SEAL, PACK, LOAD, replace(SEAL, files=(), rows=0, digest=0)])
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    found = parse_manifest(manifest.stem, manifest.text())
    assert found == manifest
    assert found.hash == manifest.hash
    assert json.loads(manifest.text())["hash"] == manifest.hash


@pytest.mark.fault("F73")
@given(st.integers(0, len(PACK.text()) - 2), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(at: int, flip: int) -> None:
    raw = bytearray(PACK.text().encode())
    raw[at] ^= flip
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return
    try:
        found = parse_manifest(PACK.stem, text)
    except ManifestError:
        return
    assert found == PACK  # a byte that JSON does not count, as a space for a newline


@pytest.mark.fault("F73")
@given(st.integers(0, len(SEAL.text()) - 2))
def test_no_torn_manifest_is_believed(length: int) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(SEAL.stem, SEAL.text()[:length])


def _signed(manifest: Manifest, **changes: object) -> str:
    """Return a manifest with other entries, and the hash that belongs to them."""
    import hashlib

    loaded = json.loads(manifest.text())
    loaded.pop("hash")
    loaded |= changes
    canonical = json.dumps(loaded, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return json.dumps(loaded | {"hash": hashlib.sha256(canonical.encode()).hexdigest()})


@pytest.mark.parametrize(
    ("manifest", "changes", "reason"),
    [
        (SEAL, {"format": 2}, "format 2"),
        (SEAL, {"ledger": "other"}, "another name"),
        (SEAL, {"last": 10}, "another name"),
        (SEAL, {"rows": 4}, "rows"),
        (SEAL, {"digest": "0" * 16}, "digests"),
        (SEAL, {"digest": 7}, "digest"),
        (SEAL, {"prev": "x"}, "hash"),
        (SEAL, {"more": 1}, "unknown"),
        (SEAL, {"files": [{"day": "../.."}]}, "other entries"),
        (SEAL, {"rows": True}, "whole number"),
        (SEAL, {"sealed_ms": -1}, "whole number"),
        (PACK, {"links": []}, "cover"),
        (PACK, {"links": [[1, 8, SHA, 3, f"{7:016x}"], [10, 20, SHA, 2, f"{11:016x}"]]}, "hole"),
        (PACK, {"dropped": {"rows": 0, "digest": "0" * 16}}, "sum"),
        (LOAD, {"part": 5}, "another name"),
    ],
)
def test_what_contradicts_itself_is_refused_with_a_reason(manifest: Manifest, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ManifestError, match=reason) as caught:
        parse_manifest(manifest.stem, _signed(manifest, **changes))
    assert manifest.stem.manifest_name in str(caught.value)
    assert manifest.stem.manifest_name in caught.value.message_zh


@pytest.mark.fault("F51")
@pytest.mark.parametrize("day", ["../../etc", "2025-06-16/..", "", "2025-06-31"])
def test_a_file_of_no_day_is_refused(day: str) -> None:
    loaded = json.loads(SEAL.text())["files"][0]
    with pytest.raises(ManifestError, match="no day"):
        parse_manifest(SEAL.stem, _signed(SEAL, files=[loaded | {"day": day}]))


def test_the_chain_goes_on_from_a_pack_as_from_its_last_seal() -> None:
    assert SEAL.ends == (SEAL.hash,)
    assert PACK.ends == (PACK.hash, SHA)
    assert PACK.as_links() == PACK.links
    assert SEAL.as_links() == (Link(1, 9, SEAL.hash, 3, 7),)


def test_digests_add_up_without_end() -> None:
    assert combined([1 << 63, 1 << 63, 5]) == 5


def test_a_damaged_manifest_is_named_once_and_its_advice_can_be_followed(tmp_path: Path) -> None:
    name = "seal-ledger-one-0000000000000001-0000000000000003.json"
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / name).write_text("torn", encoding="utf-8")
    ((stem, why),) = SegmentFolder(tmp_path).snapshot().unreadable
    assert stem.manifest_name == name
    assert name not in why, "who tells it names the file himself"
    assert "restore it from a backup" in why
    error = ManifestError(name, "torn")
    assert str(error).count(name) == error.message_zh.count(name) == 1
    assert "doctor" not in f"{error}{error.message_zh}"
