"""A listing names only what a backup of ours can hold: no path in it leads anywhere else."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.care.listing import (
    FORMAT,
    LEDGER_PATH,
    Filed,
    LedgerFacts,
    Listing,
    ListingError,
    is_path_of_ours,
    parse_listing,
)

SHA = "0" * 64
FACTS = LedgerFacts("ledger-one", "PARK1", 2, 9, 1, SHA)


def listing(*paths: str) -> Listing:
    files = (Filed(LEDGER_PATH, 5, SHA), *(Filed(path, 1, SHA) for path in paths))
    return Listing("0.1.0", 1, 2, {"ledger": 2}, FACTS, files, ("one: missing",))


GOOD = [
    "core/snapshot-00000000000000000005.bin", "serve/tokens.json", "serve/audit.jsonl", "serve/audit.9.jsonl", "site/site.yaml",
    "site/站点.yml", "historian/kept_from.json", "historian/evidence/2026-01.parquet", "historian/feeds/MAIN.json",
    "historian/manifests/seal-ledger-one-0000000000000001-0000000000000003.json",
    "historian/samples/2026-01-31/load-abc-00000001.parquet",
    "historian/rollups/2026-01-31/pack-ledger-one-0000000000000001-0000000000000003.parquet",
]  # fmt: skip
EVIL = [
    "../core/ledger.sqlite3", "core/../../ledger.sqlite3", "/etc/passwd", "core//ledger.sqlite3", "./core/ledger.sqlite3", "",
    "core/core.lock", "core/acts.sock", "serve/tokens.json/", "serve/tokens.tmp", "serve/where.json", "site/../site.yaml",
    "site/.yaml", "site/a/b.yaml", "site/secret", "site/..yaml", "C:\\core\\ledger.sqlite3", "core\\ledger.sqlite3",
    "\\\\host\\share\\site.yaml", "historian/manifests/..json", "historian/samples/../2026-01-31/load-abc-00000001.parquet",
    "historian/samples/2026-13-31/load-abc-00000001.parquet", "historian/evidence/../kept_from.parquet",
    "historian/quarantine/../L1-0000000000000007", "historian/quarantine/L1-7",
    "historian/evidence/a/b.parquet", "core/snapshot-00000000000000000005.bin\n", "core/ledger.sqlite3\0", "core/ledger.sqlite3%00",
    "%2e%2e/core/ledger.sqlite3", "historian/feeds/../x.json", "historian/feeds/.x.json", "..", ".", "core", "backup.json",
    "core/ledger.sqlite3-wal",
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
def test_what_a_backup_holds_is_read_back(path: str) -> None:
    told = listing(path)
    assert parse_listing(told.text()) == told


@pytest.mark.fault("F51")
@pytest.mark.parametrize("path", EVIL)
def test_a_path_that_is_none_of_ours_is_refused(path: str) -> None:
    with pytest.raises(ListingError, match="no path of a backup"):
        parse_listing(listing(path).text())


@pytest.mark.fault("F51")
@given(st.text(alphabet="./\\acorehistn%0-\0", max_size=30))
def test_no_path_leads_out(path: str) -> None:
    if is_path_of_ours(path):
        parts = path.split("/")
        assert parts[0] in ("core", "serve", "historian", "site")
        assert not {"", ".", ".."} & set(parts)
        assert "\\" not in path


def change(**entries: object) -> str:
    """The text of a listing with other entries, its hash made right."""
    told = {**json.loads(listing().text()), **entries}
    told.pop("hash")
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return json.dumps({**told, "hash": hashlib.sha256(text.encode()).hexdigest()})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "torn", id="nothing"),
        pytest.param(listing().text()[:-30], "torn", id="cut short"),
        pytest.param("[]", "no JSON object", id="a list"),
        pytest.param(listing().text().replace("0.1.0", "0.1.1"), "was changed", id="a changed text"),
        pytest.param(change(format=FORMAT + 1), "format 2", id="a newer format"),
        pytest.param(change(files=[]), "no ledger", id="no ledger"),
        pytest.param(change(files=[{"path": LEDGER_PATH, "bytes": 1, "sha256": SHA}] * 2), "twice", id="one file twice"),
        pytest.param(change(files=[{"path": LEDGER_PATH, "bytes": -1, "sha256": SHA}]), "no size", id="a size below zero"),
        pytest.param(change(files=[{"path": LEDGER_PATH, "bytes": True, "sha256": SHA}]), "no size", id="a size of another type"),
        pytest.param(change(files=[{"path": LEDGER_PATH, "bytes": 1, "sha256": "x"}]), "no checksum", id="no checksum"),
        pytest.param(change(files=[{"path": LEDGER_PATH}]), "other entries", id="entries that are missing"),
        pytest.param(change(files=[{"path": 5, "bytes": 1, "sha256": SHA}]), "no path", id="a path that is a number"),
        pytest.param(change(made_ms="now"), "number", id="a time that is text"),
        pytest.param(change(more=1), "more", id="an entry nobody knows"),
        pytest.param(change(ledger={"id": 1}), "argument", id="a ledger without its facts"),
        pytest.param("[" * 100_000, "torn", id="nested beyond measure"),
    ],
)
def test_what_is_no_listing_is_refused_and_why(text: str, why: str) -> None:
    with pytest.raises(ListingError, match=why):
        parse_listing(text)
