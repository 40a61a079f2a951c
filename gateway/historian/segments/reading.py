"""Questions to a historian folder as a whole: samples and rollups of its bases, the newest, days and tags of its own."""

from __future__ import annotations

from gateway.historian.samples import DAY_MS, Samples
from gateway.historian.segments.folder import Snapshot
from gateway.historian.segments.missing import TIME_MS_MAX, Missing, within
from gateway.historian.segments.names import ROLLUPS, SAMPLES
from gateway.historian.segments.query import UnreadableError, by_halves
from gateway.historian.segments.reading_rollups import RollupsReader
from gateway.historian.store import ROWS_MAX


class SegmentReader(RollupsReader):
    """Reads one historian folder. Any thread may ask."""

    def newest(self, taken: Snapshot, names: tuple[str, ...], give_up_at: float) -> tuple[Samples, list[Missing]]:
        """Return the newest sample of each tag that has one; looks further and further back for those not found yet."""
        missing: list[Missing] = []
        files = sorted(taken.files(), key=lambda file: file.file.to_ms, reverse=True)
        files = self._sound(files, "rollups", (), missing)
        found: dict[int, int] = {}
        at, step = 0, 8
        while at < len(files) and len(found) < len(names):
            some = files[at : at + step]
            wanted = tuple(name for number, name in enumerate(names) if number not in found)
            numbers = [number for number in range(len(names)) if number not in found]
            for told in by_halves(
                some, lambda these, wanted=wanted: self._parquet.newest(self._paths(these, ROLLUPS), wanted, give_up_at),  # type: ignore[misc]
                lambda file, error: self._unreadable(file, "rollups", error, missing),
            ):  # fmt: skip
                for number, to_ms in told.items():
                    found[numbers[number]] = max(to_ms, found.get(numbers[number], to_ms))
            at, step = at + len(some), step * 4
        # What lies in files not looked at may still be newer where files overlap in time.
        late = [file for file in files[at:] if found and file.file.to_ms > min(found.values())]
        for told in by_halves(
            late, lambda these: self._parquet.newest(self._paths(these, ROLLUPS), names, give_up_at),
            lambda file, error: self._unreadable(file, "rollups", error, missing),
        ):  # fmt: skip
            for number, to_ms in told.items():
                found[number] = max(to_ms, found.get(number, to_ms))
        spans = [(number, to_ms, to_ms + 1) for number, to_ms in found.items()]
        samples, lost = self.samples_of(taken, names, spans, ROWS_MAX, give_up_at)
        # Only what reaches beyond what was found may hold a newer one.
        oldest = min(found.values()) if len(found) == len(names) else -TIME_MS_MAX
        missing += self._manifests_missing(taken, oldest, TIME_MS_MAX)
        return samples, list(dict.fromkeys([*within(missing, oldest + 1, TIME_MS_MAX), *lost]))

    def days(self, taken: Snapshot, give_up_at: float) -> list[int]:
        """Return the beginnings of the UTC days that hold samples, also of those that cannot be read."""
        found = {each.from_ms for each in self._manifests_missing(taken, -TIME_MS_MAX, TIME_MS_MAX)}
        held = [(self._paths([live], SAMPLES), live.file.from_ms, live.file.to_ms) for live in taken.files()]
        when = self._evidence_spans()
        held += [(self._evidence_paths([day]), *when[day]) for day in self._evidence(taken, -TIME_MS_MAX, TIME_MS_MAX) if day in when]
        for paths, from_ms, to_ms in held:
            lo, hi = from_ms // DAY_MS, to_ms // DAY_MS
            if lo == hi:
                found.add(lo * DAY_MS)
            else:  # stamps of lost clocks share one file
                try:
                    found.update(day * DAY_MS for day in self._parquet.days(paths, give_up_at))
                except UnreadableError:
                    found.update((lo * DAY_MS, hi * DAY_MS))
        return sorted(found)

    def tags_of(
        self, taken: Snapshot, from_ms: int, to_ms: int, give_up_at: float
    ) -> tuple[list[tuple[str, int]], list[Missing]]:
        """Return the tags whose samples lie in files of [from_ms, to_ms), by id, and about how many rows each has."""
        missing = self._manifests_missing(taken, from_ms, to_ms)
        files = self._sound(self._files(taken, [(0, from_ms, to_ms)]), "samples", None, missing)
        rows: dict[str, int] = {}
        for told in by_halves(
            files, lambda these: self._parquet.tags(self._paths(these, SAMPLES), give_up_at),
            lambda file, error: self._unreadable(file, "samples", error, missing),
        ):  # fmt: skip
            for tag, count in told:
                rows[tag] = rows.get(tag, 0) + count
        for told in by_halves(
            self._evidence(taken, from_ms, to_ms), lambda some: self._parquet.tags(self._evidence_paths(some), give_up_at),
            lambda one, error: missing.append(self._evidence_missing(one, error)),
        ):  # fmt: skip
            for tag, count in told:
                rows[tag] = rows.get(tag, 0) + count
        return sorted(rows.items()), within(missing, from_ms, to_ms)
