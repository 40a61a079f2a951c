"""`backup.json`: what a backup holds. Pure: text in, a checked listing out.

A listing is refused whole if one entry is not exactly what a backup of ours can hold: no path in it can lead out of
the folder it is restored into (F51). The hash in it finds damage; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gateway.historian.segments.names import is_day, parse_data_name, parse_manifest_name

FORMAT: Final = 1
LISTING_NAME: Final = "backup.json"
LISTING_BYTES_MAX: Final = 512 * 1024 * 1024
FILES_MAX: Final = 2_000_000
LEDGER_PATH: Final = "core/ledger.sqlite3"

_SNAPSHOT = re.compile(r"core/snapshot-[0-9]{20}\.bin")
_SERVE = re.compile(r"serve/(tokens\.json|audit(\.[1-9])?\.jsonl)")
_SITE = re.compile(r"site/[A-Za-z0-9_\u4e00-\u9fff][A-Za-z0-9_.\u4e00-\u9fff-]{0,100}\.ya?ml")
_HISTORIAN = re.compile(
    r"historian/(kept_from\.json|evidence/[A-Za-z0-9_][A-Za-z0-9_-]{0,100}\.parquet|quarantine/[A-Za-z0-9_-]{1,80}-[0-9]{16})"
)
_FEED = re.compile(r"historian/feeds/[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\.jsonl?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ListingError(ValueError):
    """The text is no listing of a backup of ours."""


@dataclass(frozen=True, slots=True)
class Filed:
    """One file: its path below the backup's folder (and below the data folder it came from), size and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """What the copied ledger holds. Every row committed up to `pos` is in it.

    Attributes:
        pos: its newest log position. journal_rows, journal_hash: last row and hash of the journal; 0 and empty without one.
    """

    id: str
    site: str
    schema: int
    pos: int
    journal_rows: int
    journal_hash: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole backup.

    Attributes:
        program: version of the program that made it.
        versions: of the ledger's schema, snapshots, state dumps and manifests.
        damaged: what was damaged or missing in the historian already when the backup was made; it was taken as it was.
    """

    program: str
    started_ms: int
    made_ms: int
    versions: dict[str, int]
    ledger: LedgerFacts
    files: tuple[Filed, ...]
    damaged: tuple[str, ...] = ()
    format: int = field(default=FORMAT)

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(one.bytes for one in self.files)

    @property
    def by_path(self) -> dict[str, Filed]:
        """The files by their paths."""
        return {one.path: one for one in self.files}

    def text(self) -> str:
        """Return it as it is written."""
        content = asdict(self)
        return _canonical({**content, "hash": _hash(content)}) + "\n"


def is_path_of_ours(path: str) -> bool:
    """Whether a backup of ours can hold this path."""
    if _SNAPSHOT.fullmatch(path) or _SERVE.fullmatch(path) or _HISTORIAN.fullmatch(path) or _FEED.fullmatch(path):
        return True
    parts = path.split("/")
    match parts:
        case ["core", "ledger.sqlite3"]:
            return True
        case ["historian", "manifests", name]:
            return parse_manifest_name(name) is not None
        case ["historian", "samples" | "rollups", day, name]:
            return is_day(day) and parse_data_name(name) is not None
        case ["site", _]:
            return _SITE.fullmatch(path) is not None
    return False


def parse_listing(text: str) -> Listing:
    """Inverse of `Listing.text`.

    Raises:
        ListingError: not one of ours, of a newer format, damaged, or with a path that is not a backup's.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise ListingError("it is no JSON: torn or overwritten") from None
    if not isinstance(told, dict):
        raise ListingError("it is no JSON object")
    if told.get("format") != FORMAT:
        raise ListingError(f"it has format {str(told.get('format'))[:20]}, this program reads {FORMAT}")
    given = told.pop("hash", None)
    try:
        if given != _hash(told):
            raise ListingError("its own hash differs: it was changed")
        ledger = LedgerFacts(**told.pop("ledger"))
        files = tuple(_filed(row) for row in told.pop("files"))
        damaged = tuple(str(one) for one in told.pop("damaged"))
        listing = Listing(ledger=ledger, files=files, damaged=damaged, **told)
        _check(listing)
    except ListingError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ListingError(str(error)[:200]) from None
    return listing


def _check(listing: Listing) -> None:
    paths = [one.path for one in listing.files]
    if len(paths) > FILES_MAX:
        raise ListingError(f"{len(paths)} files, at most {FILES_MAX}")
    if len(set(paths)) != len(paths):
        raise ListingError("it names a file twice")
    if LEDGER_PATH not in set(paths):
        raise ListingError("it names no ledger")
    facts = listing.ledger
    if not all(isinstance(text, str) for text in (facts.id, facts.site, facts.journal_hash, listing.program)):
        raise ListingError("a text in it is none")
    numbers = (facts.schema, facts.pos, facts.journal_rows, listing.started_ms, listing.made_ms, *listing.versions.values())
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ListingError("a number in it is none")


def _filed(row: Any) -> Filed:
    if not isinstance(row, dict) or row.keys() != {"path", "bytes", "sha256"}:
        raise ListingError("a file is described by other entries")
    path, size, sha256 = row["path"], row["bytes"], row["sha256"]
    if not isinstance(path, str) or not is_path_of_ours(path):
        raise ListingError(f"{str(path)[:120]!a} is no path of a backup")
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ListingError(f"{path}: no size or no checksum")
    return Filed(path, size, sha256)


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
