"""Names in the segment folder. They are the cursor, so they are made and read in one place, strictly.

Nothing that comes from a ledger, a site or a store may choose a path: an id that is not plain is refused, and what
cannot be read back as exactly the same name is a stranger and is left alone.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from gateway.historian.samples import DAY_MS

FOLDER_NAME: Final = "historian"  # in the data folder
MANIFESTS: Final = "manifests"
SAMPLES: Final = "samples"
ROLLUPS: Final = "rollups"
EVIDENCE: Final = "evidence"
TEMPORARY: Final = "temporary"  # what DuckDB spills; emptied at every start
KEPT_FROM_NAME: Final = "kept_from.json"
STATUS_NAME: Final = "status.json"
LOCK_NAME: Final = "historian.lock"
BEGUN: Final = ".begun"  # beside manifests: a part of a load that has files and not yet a manifest
ASIDE: Final = ".tmp"  # ends the name of a file that is not yet complete

POS_MAX: Final = 10**16 - 1
PART_MAX: Final = 10**8 - 1
DAY_MIN: Final = "0001-01-01"
DAY_MAX: Final = "9999-12-31"

Kind = Literal["seal", "pack", "load"]

_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_LEDGER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOAD: Final = re.compile(r"[a-z0-9]{1,32}")
_STEM: Final = re.compile(
    r"(?P<kind>seal|pack)-(?P<ledger>[A-Za-z0-9][A-Za-z0-9_-]{0,63})-(?P<first>[0-9]{16})-(?P<last>[0-9]{16})"
    r"|load-(?P<load>[a-z0-9]{1,32})-(?P<part>[0-9]{8})"
)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")


@dataclass(frozen=True, slots=True, order=True)
class Stem:
    """What a manifest and its data files are called, without their endings.

    Attributes:
        owner: id of the ledger, or of the load. kind: `seal`, `pack` or `load`.
        first, last: log positions, both included; of a load the part, twice.
    """

    owner: str
    first: int
    last: int
    kind: Kind

    def __post_init__(self) -> None:
        if not (_LOAD if self.kind == "load" else _LEDGER).fullmatch(self.owner):
            raise ValueError(f"{self.owner[:80]!r} cannot name a {self.kind}: letters, digits, - and _ only")
        if self.kind == "load" and not 0 <= self.first == self.last <= PART_MAX:
            raise ValueError(f"part {self.first} of a load; parts run from 0 to {PART_MAX}")
        if self.kind != "load" and not 1 <= self.first <= self.last <= POS_MAX:
            raise ValueError(f"log positions {self.first} to {self.last}; they run from 1 to {POS_MAX}, first before last")

    def __str__(self) -> str:
        if self.kind == "load":
            return f"load-{self.owner}-{self.first:08d}"
        return f"{self.kind}-{self.owner}-{self.first:016d}-{self.last:016d}"

    @property
    def manifest_name(self) -> str:
        """The manifest's file name."""
        return f"{self}.json"

    @property
    def data_name(self) -> str:
        """The file name of samples and of rollups, in the folder of their day."""
        return f"{self}.parquet"

    def inside(self, other: Stem) -> bool:
        """Whether `other` is a pack of the same ledger that holds this range."""
        return (
            other.kind == "pack" and self.kind != "load" and self != other and self.owner == other.owner
            and other.first <= self.first and self.last <= other.last
        )  # fmt: skip


def parse_stem(text: str) -> Stem | None:
    """Return the stem that a name without its ending says, or None: a stranger."""
    found = _STEM.fullmatch(text)
    if found is None:
        return None
    try:
        if found["load"] is not None:
            return Stem(found["load"], int(found["part"]), int(found["part"]), "load")
        return Stem(found["ledger"], int(found["first"]), int(found["last"]), "pack" if found["kind"] == "pack" else "seal")
    except ValueError:
        return None


def parse_manifest_name(name: str) -> Stem | None:
    """Return the stem of a manifest's file name, or None."""
    return parse_stem(name.removesuffix(".json")) if name.endswith(".json") else None


def parse_data_name(name: str) -> Stem | None:
    """Return the stem of a data file's name, or None."""
    return parse_stem(name.removesuffix(".parquet")) if name.endswith(".parquet") else None


def is_ledger_id(text: str) -> bool:
    """Whether an id can stand in a name."""
    return _LEDGER.fullmatch(text) is not None


def is_load_id(text: str) -> bool:
    """Whether an id can name a load."""
    return _LOAD.fullmatch(text) is not None


def day_of(source_ms: int) -> str:
    """Return the UTC day of a time as YYYY-MM-DD; times before year 1 or after 9999 belong to the first or last day."""
    ordinal = source_ms // DAY_MS + _EPOCH
    if ordinal < 1:
        return DAY_MIN
    return DAY_MAX if ordinal > datetime.date.max.toordinal() else datetime.date.fromordinal(ordinal).isoformat()


def day_ms(day: str) -> int:
    """Return the beginning of a day as UTC epoch milliseconds.

    Raises:
        ValueError: it is not a day as `day_of` writes it.
    """
    if not is_day(day):
        raise ValueError(f"{day[:40]!r} is not a day written as YYYY-MM-DD")
    return (datetime.date.fromisoformat(day).toordinal() - _EPOCH) * DAY_MS


def is_day(text: str) -> bool:
    """Whether a name is a day as `day_of` writes it."""
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_month(text: str) -> bool:
    """Whether a name is a month as files of evidence have it."""
    return _MONTH.fullmatch(text) is not None and is_day(f"{text}-01")


def manifest_path(folder: Path, stem: Stem) -> Path:
    """Where a manifest is, in the historian's folder."""
    return folder / MANIFESTS / stem.manifest_name


def begun_path(folder: Path, stem: Stem) -> Path:
    """Where it stands that a part of a load was begun, until it is committed."""
    return folder / MANIFESTS / f"{stem}{BEGUN}"


def samples_path(folder: Path, stem: Stem, day: str) -> Path:
    """Where a day's samples of a stem are."""
    return folder / SAMPLES / _checked(day) / stem.data_name


def rollup_path(folder: Path, stem: Stem, day: str) -> Path:
    """Where a day's rollups of a stem are."""
    return folder / ROLLUPS / _checked(day) / stem.data_name


def _checked(day: str) -> str:
    if not is_day(day):
        raise ValueError(f"{day[:40]!r} is not a day written as YYYY-MM-DD")
    return day
