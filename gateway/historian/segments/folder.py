"""What is in the segment folder: which manifests count, how far a ledger is sealed, what is whole.

Only names, manifests and checksums are read here, never samples, so that core can ask without loading a database.
Everything follows from what the folder holds at the moment of asking; a folder may be packed meanwhile, and then a
file is gone that a moment ago was named: take a new snapshot and ask again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.historian.segments.kept import NOTHING_GONE, KeptFrom
from gateway.historian.segments.manifest import MANIFEST_BYTES_MAX, DayFile, Manifest, ManifestError, parse_manifest
from gateway.historian.segments.names import MANIFESTS, Stem, parse_manifest_name, rollup_path, samples_path

MANIFESTS_MAX: Final = 1_000_000
PROBLEMS_MAX: Final = 100
VERIFY_BYTES_MAX: Final = 1 << 30
CHUNK_BYTES: Final = 1 << 20
TRIES: Final = 4
ANCESTORS_MAX: Final = 64  # as many restores as a ledger remembers


@dataclass(frozen=True, slots=True)
class Ancestor:
    """The ledger that this one was restored from: `pos` is the highest log position it had taken over."""

    ledger_id: str
    pos: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that failed its checks, and exactly which samples that concerns (both ends included; 0, 0: unknown)."""

    file: str
    day: str
    from_ms: int
    to_ms: int
    why: str
    tags: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One day of one manifest that counts."""

    stem: Stem
    sealed_ms: int
    file: DayFile

    def samples(self, folder: Path) -> Path:
        """Where its samples are."""
        return samples_path(folder, self.stem, self.file.day)

    def rollup(self, folder: Path) -> Path:
        """Where its rollups are."""
        return rollup_path(folder, self.stem, self.file.day)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The folder at one moment.

    Attributes:
        manifests: those that count, in order of owner and range. superseded: those that lie inside a pack of these.
        unreadable: stems whose manifest is damaged, with why; their data files are not touched.
        kept: what was removed on purpose.
    """

    manifests: tuple[Manifest, ...]
    superseded: tuple[Stem, ...]
    unreadable: tuple[tuple[Stem, str], ...]
    kept: KeptFrom = NOTHING_GONE

    @property
    def kept_from(self) -> str:
        """Of days before this one something was removed on purpose; empty: of none."""
        return self.kept.day

    def files(self, from_ms: int = -(1 << 63), to_ms: int = 1 << 63) -> Iterator[LiveFile]:
        """Yield the files that may hold samples of [from_ms, to_ms) and are there: not those that retention removed.

        Go by their times, not by their day: under the last day of all stand the stamps of clocks that were lost.
        """
        for manifest in self.manifests:
            for file in manifest.files:
                if file.from_ms < to_ms and file.to_ms >= from_ms and not self.kept.covers(manifest.stem, file.leaves):
                    yield LiveFile(manifest.stem, manifest.sealed_ms, file)

    def chain(self, owner: str, kind: str = "ledger") -> tuple[Manifest, ...]:
        """Return the manifests of a ledger (or, with kind `load`, of a load), by range."""
        return tuple(m for m in self.manifests if m.stem.owner == owner and (m.stem.kind == "load") == (kind == "load"))

    def cursor(self, ledger_id: str, ancestry: Sequence[Ancestor] = (), pruned: int = 0) -> int:
        """Return the highest log position up to which everything is sealed, 0 if nothing is.

        Args:
            ancestry: where the ledger was restored from, and where that one was …, nearest first.
            pruned: rows up to here have left the ledger: what is missing of them stays missing, and behind them it goes on.
        """
        chain = self.chain(ledger_id)
        return through(chain, max(through(chain, self._base(ancestry)), pruned))

    def missing_upto(self, ledger_id: str, ancestry: Sequence[Ancestor], pruned: int) -> list[tuple[int, int]]:
        """Return the stretches of log positions up to `pruned`, both ends included, that no manifest's name claims."""
        held = [(stem.first, stem.last) for stem, _ in self.unreadable if stem.owner == ledger_id and stem.kind != "load"]
        held += [(m.stem.first, m.stem.last) for m in self.chain(ledger_id)]
        limit = pruned
        for each in ancestry:
            limit = min(limit, each.pos)
            held += [(m.stem.first, min(m.stem.last, limit)) for m in self.chain(each.ledger_id)]
        if len(ancestry) >= ANCESTORS_MAX:  # of those before nobody knows: what stands there may be theirs
            known = {ledger_id, *(each.ledger_id for each in ancestry)}
            held += [
                (m.stem.first, min(m.stem.last, limit))
                for m in self.manifests if m.stem.kind != "load" and m.stem.owner not in known
            ]  # fmt: skip
        found, at = [], 1
        for first, last in sorted(held):
            if at < first and at <= pruned:
                found.append((at, min(first - 1, pruned)))
            at = max(at, last + 1)
        return [*found, (at, pruned)] if at <= pruned else found

    def _base(self, ancestry: Sequence[Ancestor]) -> int:
        """Return what a ledger's ancestors had sealed of what it took over."""
        if not ancestry:
            return 0
        nearest, rest = ancestry[0], ancestry[1:]
        chain = self.chain(nearest.ledger_id)
        base = self._base(rest)
        if not rest and chain and not chain[0].prev:
            base = chain[0].stem.first - 1  # nobody remembers where that one came from: its chain says where it began
        return min(nearest.pos, through(chain, base))


@dataclass(frozen=True, slots=True)
class Verified:
    """What was checked: the folder keeps everything up to `cursor`, byte for byte.

    Attributes:
        chain: hash of the manifest that holds the cursor, empty if there is none.
        complete: False when the bound on bytes was reached: ask again with the cursor as `after`.
    """

    cursor: int
    chain: str
    problems: tuple[Problem, ...]
    complete: bool = True


class SegmentFolder:
    """Reads one historian folder; remembers manifests it has read, which never change. For one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[Stem, tuple[tuple[int, int, int], Manifest | ManifestError]] = {}

    def snapshot(self) -> Snapshot:
        """Read names, and the manifests not yet known.

        Raises:
            OSError: the folder cannot be read; a folder that is not there is an empty one.
        """
        readable: list[Manifest] = []
        unreadable: list[tuple[Stem, str]] = []
        known: dict[Stem, tuple[tuple[int, int, int], Manifest | ManifestError]] = {}
        for stem in _stems(self.path / MANIFESTS):
            kept = self._known(stem)
            if kept is None:
                continue  # packed away since it was listed
            known[stem] = kept
            if isinstance(kept[1], Manifest):
                readable.append(kept[1])
            else:
                unreadable.append((stem, kept[1].why))
        self._read = known
        live, superseded = _without_superseded(readable)
        lost = [(stem, why) for stem, why in unreadable if not any(stem.inside(each.stem) for each in live)]
        gone = [stem for stem, _ in unreadable if stem not in {each for each, _ in lost}]
        return Snapshot(tuple(live), (*superseded, *gone), tuple(lost), KeptFrom.read(self.path))

    def _known(self, stem: Stem) -> tuple[tuple[int, int, int], Manifest | ManifestError] | None:
        path = self.path / MANIFESTS / stem.manifest_name
        try:
            found = path.stat()
            mark = (found.st_ino, found.st_size, found.st_mtime_ns)
            known = self._read.get(stem)
            if known is not None and known[0] == mark:
                return known
            if found.st_size > MANIFEST_BYTES_MAX:
                return mark, ManifestError(stem.manifest_name, f"{found.st_size} bytes, at most {MANIFEST_BYTES_MAX}")
            return mark, parse_manifest(stem, path.read_bytes().decode())
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            return mark, ManifestError(stem.manifest_name, "not UTF-8: overwritten")
        except ManifestError as error:
            return mark, error
        except OSError as error:
            return (0, 0, 0), ManifestError(stem.manifest_name, f"cannot be read ({error.strerror})")

    def verified(
        self, ledger_id: str, ancestry: Sequence[Ancestor] = (), after: int = 0, bytes_max: int = VERIFY_BYTES_MAX, pruned: int = 0
    ) -> Verified:
        """Check every manifest of a ledger that holds positions after `after`: its hash, its chain, its files' bytes.

        Args:
            after: positions up to here were verified before, or are in no ledger any more.
            bytes_max: read at most about so much; at least one manifest is checked.
            pruned: see `Snapshot.cursor`.

        Raises:
            OSError: the folder cannot be listed.
        """
        for _ in range(TRIES - 1):
            try:
                return self._verified(ledger_id, ancestry, after, bytes_max, pruned)
            except FileNotFoundError:
                continue  # packed meanwhile
        return self._verified(ledger_id, ancestry, after, bytes_max, pruned, gone=True)

    def _verified(
        self, ledger_id: str, ancestry: Sequence[Ancestor], after: int, bytes_max: int, pruned: int, *, gone: bool = False
    ) -> Verified:
        """See `verified`; with `gone`, a file that is not there is a problem, and no longer a pack in between."""
        taken = self.snapshot()
        problems = [Problem(stem.manifest_name, "", 0, 0, why) for stem, why in taken.unreadable if stem.owner == ledger_id]
        runs = [(each.ledger_id, taken.cursor("", ancestry[at:])) for at, each in reversed(list(enumerate(ancestry)))]
        cursor, chain, left = after, "", bytes_max
        for owner, limit in (*runs, (ledger_id, taken.cursor(ledger_id, ancestry, pruned))):
            before: Manifest | None = None
            for manifest in taken.chain(owner):
                if before is not None and not manifest.follows(before) and manifest.stem.last > after:
                    why = f"does not follow {before.stem.manifest_name}"
                    unchained = Problem(manifest.stem.manifest_name, "", 0, 0, why)
                    return Verified(cursor, chain, tuple([*problems, unchained][:PROBLEMS_MAX]))
                before = manifest
                if manifest.stem.first > limit or manifest.stem.last <= cursor:
                    chain = manifest.hash if manifest.stem.last == cursor else chain
                    continue
                if left <= 0:
                    return Verified(cursor, chain, tuple(problems[:PROBLEMS_MAX]), complete=False)
                found = [one for one in self._whole(taken, manifest, gone=gone) if one is not None]
                left -= manifest.bytes
                if found:
                    return Verified(cursor, chain, tuple([*problems, *found][:PROBLEMS_MAX]))
                cursor, chain = min(manifest.stem.last, limit), manifest.hash
        return Verified(cursor, chain, tuple(problems[:PROBLEMS_MAX]))

    def _whole(self, taken: Snapshot, manifest: Manifest, *, gone: bool) -> Iterator[Problem | None]:
        for file in manifest.files:
            if not taken.kept.covers(manifest.stem, file.leaves):
                try:
                    yield check_file(self.path, LiveFile(manifest.stem, manifest.sealed_ms, file))
                except FileNotFoundError as error:
                    if not gone:
                        raise
                    name = str(Path(str(error.filename)).relative_to(self.path))
                    yield Problem(name, file.day, file.from_ms, file.to_ms, "a manifest names it, and it is not there")


def check_file(folder: Path, live: LiveFile) -> Problem | None:
    """Compare both files of a day with what their manifest says; None: they are what was written.

    Raises:
        FileNotFoundError: one is not there; it may have been packed meanwhile.
    """
    file = live.file
    pairs = ((live.samples(folder), file.bytes, file.sha256), (live.rollup(folder), file.rollup_bytes, file.rollup_sha256))
    for path, size, sha256 in pairs:
        why = _compare(path, size, sha256)
        if why:
            return Problem(str(path.relative_to(folder)), file.day, file.from_ms, file.to_ms, why)
    return None


def _compare(path: Path, size: int, sha256: str) -> str:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes, {size} were written"
        return "" if file_sha256(path) == sha256 else "its checksum differs from what was written"
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def file_sha256(path: Path) -> str:
    """Return a file's checksum, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def through(chain: Sequence[Manifest], base: int) -> int:
    """Return how far a chain goes on from `base` without a hole."""
    for manifest in chain:
        if manifest.stem.first > base + 1:
            break
        base = max(base, manifest.stem.last)
    return base


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, none if it is not there."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _stems(folder: Path) -> list[Stem]:
    found = [stem for stem in map(parse_manifest_name, names_in(folder)) if stem is not None]
    if len(found) > MANIFESTS_MAX:
        raise OSError(f"{folder}: {len(found)} manifests, at most {MANIFESTS_MAX}; the folder is not ours any more")
    return sorted(found)


def _without_superseded(manifests: Sequence[Manifest]) -> tuple[list[Manifest], list[Stem]]:
    """Split manifests into those that count and the stems of those inside a pack; a sweep over each owner's ranges."""
    live: list[Manifest] = []
    superseded: list[Stem] = []
    # The widest first where several begin together, so that a pack comes before what it holds.
    ordered = sorted(manifests, key=lambda m: (m.stem.owner, m.stem.kind == "load", m.stem.first, -m.stem.last, m.stem.kind))
    pack: Stem | None = None
    for manifest in ordered:
        if pack is not None and manifest.stem.inside(pack):
            superseded.append(manifest.stem)
            continue
        live.append(manifest)
        if manifest.stem.kind == "pack" and (pack is None or pack.owner != manifest.stem.owner or manifest.stem.last > pack.last):
            pack = manifest.stem
    return live, superseded
