"""A manifest: what one seal, pack or part of a load holds, hash and all. Pure: text in, text out.

The text is canonical JSON (sorted keys, no spaces), so that one content has one hash. Everything read is checked
against limits before it is believed; what is wrong is said in one sentence.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from gateway.historian.segments.names import Stem, is_day

FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 32 * 1024 * 1024
FILES_MAX: Final = 20_000
LINKS_MAX: Final = 100_000
NODES_MAX: Final = 100_000
TORN_MAX: Final = 1_000
WHY_CHARS: Final = 200
_NEWER: Final = ("format ", "unknown entry ", "it says more ")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
_MODULUS: Final = 1 << 64
_INT_MAX: Final = (1 << 63) - 1
_KEYS: Final = {
    "format", "kind", "sealed_ms", "rows", "digest", "prev", "links", "dropped", "removed", "files", "nodes", "torn", "hash",
}  # fmt: skip
_FILE_KEYS: Final = {
    "day", "rows", "digest", "bytes", "sha256", "rollup_bytes", "rollup_sha256", "from_ms", "to_ms", "leaves",
}  # fmt: skip


class ManifestError(Exception):
    """A manifest's text is not what its writer wrote; `reason` is short, `why` says what to do, the message names the file."""

    def __init__(self, name: str, reason: str) -> None:
        self.reason = reason
        self.why = f"{reason}; restore it from a backup"  # where the name stands before it anyway
        super().__init__(f"{name}: {self.why}")
        self.message_zh = f"{name}：{reason}；请从备份恢复"


@dataclass(frozen=True, slots=True)
class DayFile:
    """One day's two files. Source times run from `from_ms` to `to_ms`, both included.

    `leaves` is the day that retention removes it with: its own, or where its stamps are far from when it was received
    (a lost clock, an import), the day it was received.
    """

    day: str
    rows: int
    digest: int
    bytes: int
    sha256: str
    rollup_bytes: int
    rollup_sha256: str
    from_ms: int
    to_ms: int
    leaves: str


@dataclass(frozen=True, slots=True)
class Link:
    """A seal that a pack replaced, as the chain needs it; or a stretch of seals all of whose days were removed."""

    first: int
    last: int
    hash: str
    rows: int
    digest: int


@dataclass(frozen=True, slots=True)
class Torn:
    """Rows of the log of which not all could be read when they were sealed: `rows` among positions first to last.

    They were received from `from_ms` to `to_ms`; of several, `why` is the first one's.
    """

    first: int
    last: int
    rows: int
    from_ms: int
    to_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one stem holds.

    Attributes:
        prev: hash of the seal or part before it in the chain of its ledger or load, empty for the first; a pack has that
            of the first that it replaces.
        digest: `Samples.digest` of all its samples.
        links: of a pack, the seals it replaces in order: their rows and digests sum up to its own, the dropped and the removed.
        dropped_rows, dropped_digest: of a pack, the duplicates it left out.
        removed_rows, removed_digest: of a pack, what retention had removed before.
        nodes: what a load says of its source, by name; nothing reads it.
        torn: rows of its range that could not be read; the text has the entry only if there are any.
    """

    stem: Stem
    sealed_ms: int
    rows: int
    digest: int
    prev: str
    files: tuple[DayFile, ...]
    links: tuple[Link, ...] = ()
    dropped_rows: int = 0
    dropped_digest: int = 0
    removed_rows: int = 0
    removed_digest: int = 0
    nodes: Mapping[str, Any] = field(default_factory=dict)
    torn: tuple[Torn, ...] = ()

    def text(self) -> str:
        """Return the canonical JSON, with the hash."""
        content = self._content()
        return _canonical({**content, "hash": _sha256(_canonical(content))}) + "\n"

    @property
    def hash(self) -> str:
        """sha256 over the canonical JSON without the hash itself."""
        return _sha256(_canonical(self._content()))

    @property
    def last_seal(self) -> str:
        """The hash that the next seal names as `prev`, whether this one was packed by then or not: made anew it is the same."""
        return self.as_links()[-1].hash

    @property
    def ends(self) -> tuple[str, ...]:
        """The hashes that the next manifest of the chain may name as `prev`."""
        return (self.hash, self.links[-1].hash) if self.links else (self.hash,)

    def follows(self, before: Manifest) -> bool:
        """Whether it was sealed after `before`, or when nobody could read what was before it."""
        return self.prev in ("", *before.ends)

    @property
    def bytes(self) -> int:
        """What its data files weigh."""
        return sum(file.bytes + file.rollup_bytes for file in self.files)

    def as_links(self) -> tuple[Link, ...]:
        """Return what a pack that replaces this one writes down for it."""
        return self.links or (Link(self.stem.first, self.stem.last, self.hash, self.rows, self.digest),)

    def _content(self) -> dict[str, Any]:
        stem = self.stem
        content: dict[str, Any] = {
            "format": FORMAT, "kind": stem.kind, "sealed_ms": self.sealed_ms, "rows": self.rows, "digest": _hex(self.digest),
            "prev": self.prev, "files": [_file_json(file) for file in self.files], "nodes": dict(self.nodes),
        }  # fmt: skip
        if stem.kind == "load":
            content |= {"load": stem.owner, "part": stem.first}
        else:
            content |= {"ledger": stem.owner, "first": stem.first, "last": stem.last}
        if stem.kind == "pack":
            content["links"] = [[link.first, link.last, link.hash, link.rows, _hex(link.digest)] for link in self.links]
            content["dropped"] = {"rows": self.dropped_rows, "digest": _hex(self.dropped_digest)}
            content["removed"] = {"rows": self.removed_rows, "digest": _hex(self.removed_digest)}
        if self.torn:
            content["torn"] = [[one.first, one.last, one.rows, one.from_ms, one.to_ms, one.why] for one in self.torn]
        return content


def parse_manifest(stem: Stem, text: str) -> Manifest:
    """Return what the manifest of `stem` says.

    Raises:
        ManifestError: it is not whole, not of this stem, or of a format this version does not know.
    """
    name = stem.manifest_name
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError):
        raise ManifestError(name, "not JSON: torn or overwritten") from None
    if not isinstance(loaded, dict):
        raise ManifestError(name, "not a JSON object")
    if loaded.get("format") != FORMAT:
        raise ManifestError(name, f"format {str(loaded.get('format'))[:20]}, this version reads {FORMAT}")
    given = loaded.pop("hash", None)
    if given != _sha256(_canonical(loaded)):
        raise ManifestError(name, "its own hash differs: it was changed")
    try:
        manifest = _read(stem, loaded)
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(name, str(error)[:200] or type(error).__name__) from None
    if manifest.hash != given:
        raise ManifestError(name, "it says more than this version knows")
    return manifest


def is_newer(why: str) -> bool:
    """Whether a manifest is refused because a newer version may have written it: it is not damaged, and no one's to replace."""
    return why.startswith(_NEWER)


def combined(digests: Sequence[int]) -> int:
    """Return the digest of parts put together."""
    return sum(digests) % _MODULUS


def bounded(torn: Sequence[Torn]) -> tuple[Torn, ...]:
    """Return as many as a manifest may name; those beyond are named together."""
    if len(torn) <= TORN_MAX:
        return tuple(torn)
    kept, rest = torn[: TORN_MAX - 1], torn[TORN_MAX - 1 :]
    from_ms, to_ms = min(one.from_ms for one in rest), max(one.to_ms for one in rest)
    return (*kept, Torn(rest[0].first, rest[-1].last, sum(one.rows for one in rest), from_ms, to_ms, rest[0].why))


def _read(stem: Stem, loaded: dict[str, Any]) -> Manifest:
    own = {"load", "part"} if stem.kind == "load" else {"ledger", "first", "last"}
    unknown = loaded.keys() - _KEYS - own
    if unknown:
        raise ValueError(f"unknown entry {min(unknown)[:40]}")
    if stem.kind == "load":
        said = (loaded["kind"], loaded["load"], loaded["part"], loaded["part"])
    else:
        said = (loaded["kind"], loaded["ledger"], loaded["first"], loaded["last"])
    if said != (stem.kind, stem.owner, stem.first, stem.last):
        raise ValueError("it is the manifest of another name")
    files = tuple(map(_file, _list(loaded["files"], FILES_MAX, "files")))
    if len({file.day for file in files}) != len(files):
        raise ValueError("one day twice")
    links = tuple(map(_link, _list(loaded.get("links", []), LINKS_MAX, "links")))
    nothing = {"rows": 0, "digest": "0" * 16}
    dropped, removed = loaded.get("dropped", nothing), loaded.get("removed", nothing)
    manifest = Manifest(
        stem, _whole(loaded["sealed_ms"], "sealed_ms"), _whole(loaded["rows"], "rows"), _digest(loaded["digest"]),
        _prev(loaded["prev"]), files, links, _whole(dropped["rows"], "dropped rows"), _digest(dropped["digest"]),
        _whole(removed["rows"], "removed rows"), _digest(removed["digest"]), _nodes(loaded["nodes"]),
        tuple(map(_torn, _list(loaded.get("torn", []), TORN_MAX, "torn"))),
    )  # fmt: skip
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """Refuse what contradicts itself."""
    if sum(file.rows for file in manifest.files) != manifest.rows:
        raise ValueError("its files' rows do not sum up to its own")
    if combined([file.digest for file in manifest.files]) != manifest.digest:
        raise ValueError("its files' digests do not sum up to its own")
    _check_torn(manifest.stem, manifest.torn)
    if manifest.stem.kind != "pack":
        return
    links = manifest.links
    if not links or links[0].first != manifest.stem.first or links[-1].last != manifest.stem.last:
        raise ValueError("its links do not cover its range")
    if any(after.first != before.last + 1 for before, after in pairwise(links)):
        raise ValueError("its links leave a hole")
    if sum(link.rows for link in links) != manifest.rows + manifest.dropped_rows + manifest.removed_rows:
        raise ValueError("its links' rows do not sum up to its own, the dropped and the removed")
    if combined([link.digest for link in links]) != combined([manifest.digest, manifest.dropped_digest, manifest.removed_digest]):
        raise ValueError("its links' digests do not sum up to its own, the dropped and the removed")


def _check_torn(stem: Stem, torn: tuple[Torn, ...]) -> None:
    if not torn:
        return
    if stem.kind == "load" or torn[0].first < stem.first or torn[-1].last > stem.last:
        raise ValueError("torn rows that are not of its range")
    if any(one.first > one.last for one in torn) or any(after.first <= before.last for before, after in pairwise(torn)):
        raise ValueError("torn rows that are not in order")


def _file(loaded: Any) -> DayFile:
    if not isinstance(loaded, dict) or loaded.keys() != _FILE_KEYS:
        raise ValueError("a file is described by other entries")
    if any(not isinstance(loaded[key], str) or not is_day(loaded[key]) for key in ("day", "leaves")):
        raise ValueError("a file of no day")
    numbers = {key: _whole(loaded[key], key) for key in ("rows", "bytes", "rollup_bytes")}
    times = {key: _whole(loaded[key], key, -_INT_MAX) for key in ("from_ms", "to_ms")}
    return DayFile(
        loaded["day"], numbers["rows"], _digest(loaded["digest"]), numbers["bytes"], _hash(loaded["sha256"]),
        numbers["rollup_bytes"], _hash(loaded["rollup_sha256"]), times["from_ms"], times["to_ms"], loaded["leaves"],
    )  # fmt: skip


def _file_json(file: DayFile) -> dict[str, Any]:
    return {
        "day": file.day, "rows": file.rows, "digest": _hex(file.digest), "bytes": file.bytes, "sha256": file.sha256,
        "rollup_bytes": file.rollup_bytes, "rollup_sha256": file.rollup_sha256, "from_ms": file.from_ms, "to_ms": file.to_ms,
        "leaves": file.leaves,
    }  # fmt: skip


def _link(loaded: Any) -> Link:
    if not isinstance(loaded, list) or len(loaded) != 5:
        raise ValueError("a link of another shape")
    first, last, digest_of, rows, digest = loaded
    first, last = _whole(first, "a link's first", 1), _whole(last, "a link's last", 1)
    if first > last:
        raise ValueError("a link that ends before it begins")
    return Link(first, last, _hash(digest_of), _whole(rows, "a link's rows"), _digest(digest))


def _torn(loaded: Any) -> Torn:
    if not isinstance(loaded, list) or len(loaded) != 6 or not isinstance(loaded[5], str) or len(loaded[5]) > WHY_CHARS:
        raise ValueError("torn rows of another shape")
    first, last, rows = (_whole(value, "a torn row's position", 1) for value in loaded[:3])
    if rows > last - first + 1:
        raise ValueError("more torn rows than positions")
    return Torn(first, last, rows, _whole(loaded[3], "from_ms", -_INT_MAX), _whole(loaded[4], "to_ms", -_INT_MAX), loaded[5])


def _list(loaded: Any, limit: int, what: str) -> list[Any]:
    if not isinstance(loaded, list) or len(loaded) > limit:
        raise ValueError(f"{what} is no list of at most {limit}")
    return loaded


def _nodes(loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, dict) or len(loaded) > NODES_MAX:
        raise ValueError(f"nodes is no object of at most {NODES_MAX} entries")
    return loaded


def _whole(loaded: Any, what: str, low: int = 0) -> int:
    if type(loaded) is not int or not low <= loaded <= _INT_MAX:
        raise ValueError(f"{what} is no whole number in range")
    return loaded


def _prev(loaded: Any) -> str:
    return "" if loaded == "" else _hash(loaded)


def _hash(loaded: Any) -> str:
    if not isinstance(loaded, str) or not _HASH.fullmatch(loaded):
        raise ValueError("a hash that is none")
    return loaded


def _digest(loaded: Any) -> int:
    if not isinstance(loaded, str) or not _DIGEST.fullmatch(loaded):
        raise ValueError("a digest that is none")
    return int(loaded, 16)


def _hex(digest: int) -> str:
    return f"{digest:016x}"


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
