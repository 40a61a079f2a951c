"""What the serve process knows, as plain values: what `LedgerView` and `HistoryReader` return and the API turns into JSON.

Times are UTC epoch milliseconds; None stands for "not known" and for NaN. Nothing here reads, decides or formats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alerting import AlarmState, Transition

CoreState = Literal["running", "stalled", "gone", "never_started"]
"""running: its loop turns. stalled: it writes heartbeats but its loop has not turned for 5 s. gone: no heartbeat for
5 s. never_started: there is no heartbeat file."""

LedgerState = Literal["ok", "starting", "missing", "unreadable", "foreign", "other_schema", "other_site"]
"""starting: readable, its newest values are still being looked for. missing: no file (core has not made it yet, or it
was removed). unreadable: SQLite cannot read it just now. foreign: a database of another program. other_schema: of a
version this program does not know. other_site: of another site."""

QualityWord = Literal["GOOD", "UNCERTAIN", "BAD", "UNKNOWN"]

AlarmListing = Literal["open", "closed", "all"]
NoticeState = Literal["due", "accepted", "parked"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a read stands in a ledger. Positions of different ledger ids cannot be compared."""

    ledger_id: str = ""
    pos: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """What one `refresh` found new.

    Attributes:
        position: where the view stands now.
        reset: everything may be different: another ledger, a restored one, one that came or went, or too much at once.
            The other fields then name what is known now, and a client loads anew.
        tags: ids of tags whose TagNow changed in more than its age; by time alone too (a tag fell silent).
        alarms: ids of alarms with a new revision, oldest first.
        edges: ids of edges of which something changed.
        deliveries: an outbox row or an attempt is new.
        health: core's or the ledger's state changed.
        behind: more waits in the log; call again at once.
    """

    position: Position
    reset: bool = False
    tags: frozenset[str] = frozenset()
    alarms: tuple[str, ...] = ()
    edges: frozenset[str] = frozenset()
    deliveries: bool = False
    health: bool = False
    behind: bool = False

    @property
    def any(self) -> bool:
        """Something is new."""
        return bool(self.reset or self.tags or self.alarms or self.edges or self.deliveries or self.health)


@dataclass(frozen=True, slots=True)
class Health:
    """The chain as this process sees it.

    Attributes:
        core: see `CoreState`.
        ledger: see `LedgerState`; `ledger_detail` says more where it is not ok.
        degraded: something is not as it must be; `reasons` names what, as short words: `core.gone`, `ledger.missing`,
            `broker.disconnected`, `unjournaled`, `overflow`, `config.differs`, `heartbeat.other_ledger`,
            `receiver.down`, `edge.offline`,
            `edge.unknown` (never heard), `edge.doubted` (two boxes under its id: its tags stay UNCERTAIN until a person
            closes its IDENTITY alarm), `behind`, `alarms.too_many`.
        heartbeat_age_ms: by this machine's clock; None without a heartbeat.
        cycles, engine_ms, connected, samples_committed, unjournaled, overflow, commit_ms_p50, commit_ms_p99: as core
            said last. `connected` is core's link to the broker.
        position: ledger id and log position up to which the view has read; `committed_pos` is core's own.
        ledger_bytes: size of the file with its write-ahead log.
        config_current: core's configuration is this process's; None where neither can be told.
        tags_good, tags_uncertain, tags_bad, tags_unknown: how many tags are of each quality.
        standing: number of standing alarms, late ones left out, by grade 1..4.
        at_ms: when this was put together.
    """

    at_ms: int
    core: CoreState
    ledger: LedgerState
    ledger_detail: str
    degraded: bool
    reasons: tuple[str, ...]
    heartbeat_age_ms: int | None
    cycles: int | None
    engine_ms: int | None
    connected: bool | None
    samples_committed: int | None
    unjournaled: bool | None
    overflow: bool | None
    commit_ms_p50: float | None
    commit_ms_p99: float | None
    position: Position
    committed_pos: int | None
    ledger_bytes: int | None
    config_current: bool | None
    tags_good: int
    tags_uncertain: int
    tags_bad: int
    tags_unknown: int
    standing: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TagNow:
    """One tag as it is known now. Nothing that is not known looks normal.

    Attributes:
        tag, unit, equipment, hazard_source, edge: ids; `unit` is empty for a discrete tag, `hazard_source` and `edge`
            where it has none.
        name_zh, name_en, label: from the site.
        value: the newest current sample's value in `unit`, clamped to the range; it stays, as the last known, when
            the tag goes stale. None where that sample is BAD (see `last_good_value`) or there was none.
        raw: as measured, where it was beyond the range.
        quality: UNKNOWN before the first GOOD sample this process knows of; BAD/STALE once nothing says that the
            value still holds.
        reason: why it is not GOOD, a `wire.Reason` name (STALE, COMM, RANGE …); empty where GOOD. For a stale tag
            `stale_cause` says what made it so: `silent`, `node_dead`, `device_dead`, `core` (it does not turn), `ledger`
            (it cannot be read, or core could not write it for 5 s), `unwatched` (heard so long before this process started
            that nobody looked for an end).
            UNCERTAIN/CONFIG: two boxes report under its edge's id.
        code: the quality code that `quality` and `reason` stand for (`wire.describe` puts it in words).
        source_ms, received_ms: of the newest current sample. age_ms: since `received_ms`.
        last_good_value, last_good_ms: newest GOOD value and its source time.
        held: an alarm of its value stands while the quality is not GOOD: the level is held, not measured.
        alarms: ids of the standing alarms of this tag, gravest first; `worst_grade` of them, 0 without any.
        stale_after_ms: its silence limit. planned: not read yet, by the site.
    """

    tag: str
    name_zh: str
    name_en: str
    label: str
    unit: str
    value: float | None
    raw: float | None
    quality: QualityWord
    reason: str
    stale_cause: str
    code: int
    source_ms: int | None
    received_ms: int | None
    age_ms: int | None
    last_good_value: float | None
    last_good_ms: int | None
    held: bool
    alarms: tuple[str, ...]
    worst_grade: int
    equipment: str
    hazard_source: str
    edge: str
    range_low: float
    range_high: float
    stale_after_ms: int
    planned: bool


@dataclass(frozen=True, slots=True)
class AlarmView:
    """One alarm with the words that belong to it.

    Attributes:
        alarm: its newest state, every field of it (`rtn_ms` of the API is `alarm.returned_ms`).
        tag_name_zh, tag_name_en: of the tag; for a system alarm the condition in words.
        kind: HIGH, LOW, HIGH_HIGH, LOW_LOW, FAULT or SYSTEM, after `alarm.limit`.
        guidance_zh, guidance_en: what the operator does first; empty where the site has no such limit any more.
        value_at_start: what it showed when it was raised; None where that was BAD or the record is gone.
        transitions: its steps, oldest first, where they were asked for (`LedgerView.alarm`), else empty.
    """

    alarm: AlarmState
    tag_name_zh: str
    tag_name_en: str
    kind: str
    guidance_zh: str
    guidance_en: str
    equipment: str
    hazard_source: str
    value_at_start: float | None
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True)
class AlarmPage:
    """Alarms in their order; `next` is the `before` of the next page, None at the end."""

    items: tuple[AlarmView, ...]
    next: str | None
    position: Position


@dataclass(frozen=True, slots=True)
class LaneNow:
    """One lane of a receiver: red, orange, yellow or blue.

    Attributes:
        last_sequence: newest number given out under the present ledger id, 0 before the first.
        oldest_due_ms: when the oldest notice not accepted yet was made.
    """

    lane: str
    due: int
    parked: int
    last_sequence: int
    oldest_due_ms: int | None


@dataclass(frozen=True, slots=True)
class ReceiverNow:
    """How delivery to one receiver stands.

    Attributes:
        down: core says that it cannot be reached; None while core does not run.
        detail: what its last answer was, in core's words.
        accepted: notices accepted since core started, as core counts them.
        last_accepted_ms: when an attempt was last accepted; None where that lies before what this process has read.
        last_attempt_ms, last_outcome, last_status, last_detail: the newest attempt.
    """

    receiver: str
    name_zh: str
    name_en: str
    regulator: bool
    down: bool | None
    detail: str
    accepted: int | None
    lanes: tuple[LaneNow, ...]
    last_accepted_ms: int | None
    last_attempt_ms: int | None
    last_outcome: str
    last_status: int | None
    last_detail: str

    @property
    def due(self) -> int:
        """Notices not accepted yet, parked ones left out."""
        return sum(lane.due for lane in self.lanes)

    @property
    def parked(self) -> int:
        """Notices that were definitely refused; still retried."""
        return sum(lane.parked for lane in self.lanes)


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One delivery attempt. outcome: accepted, retry or refused. status: of HTTP, None without an answer."""

    attempt: int
    at_ms: int
    outcome: str
    status: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class NoticeView:
    """One notice to one receiver. `attempt_list` holds at most the newest 50, oldest first; `attempts` counts all."""

    notice_id: str
    alarm_id: str
    transition_id: str
    receiver: str
    lane: str
    ledger_id: str
    sequence: int
    revision: int
    created_ms: int
    state: NoticeState
    attempts: int
    next_ms: int | None
    attempt_list: tuple[AttemptView, ...]


@dataclass(frozen=True, slots=True)
class NoticePage:
    """Notices, newest first; `next` is the `before` of the next page, None at the end."""

    items: tuple[NoticeView, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class LossView:
    """Frame numbers that will never come. last is 0 where the end is not known."""

    stream: int
    first: int
    last: int
    cause: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class EdgeNow:
    """One edge as the gateway sees it. None: not known.

    Attributes:
        online: its session stands. since_ms: since when it is online, or is not.
        ours: it numbers its frames (end-to-end receipt); a foreign node has none.
        stream, upto: its live stream and the frame number up to which all of it is committed.
        backlog_streams: sealed streams of which frames are still missing.
        backlog_frames: how many are known to be missing in them; more may be, where an end is not known yet.
        last_frame_ms: when its newest frame was received.
        config_matches: as its birth and the standing conditions say. clock_synced: as the standing conditions say.
        clock_offset_ms: as its birth said.
        conditions: last words of the standing system conditions: OFFLINE, CONFIG, SPOOL, CLOCK, IDENTITY …
        losses: how many ranges were lost in all; `last_losses` the newest of them, at most 20, newest first.
        tags: how many of the site's tags it reads.
    """

    edge: str
    name_zh: str
    name_en: str
    online: bool | None
    since_ms: int | None
    ours: bool | None
    stream: int
    upto: int | None
    backlog_streams: int | None
    backlog_frames: int | None
    last_frame_ms: int | None
    config_matches: bool | None
    clock_synced: bool | None
    clock_offset_ms: int | None
    conditions: tuple[str, ...]
    losses: int
    last_losses: tuple[LossView, ...]
    tags: int


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One sample. value is None where BAD; raw where it was clamped. late: it came after newer ones."""

    source_ms: int
    value: float | None
    quality: QualityWord
    code: int
    raw: float | None = None
    late: bool = False


@dataclass(frozen=True, slots=True)
class HistoryBucket:
    """Samples of [from_ms, to_ms). The values are of those that are not BAD, exact, each with its source time.

    first/last/min/max are None (all of them) in a bucket of BAD samples only. Of equal extremes the earliest is kept.
    """

    from_ms: int
    to_ms: int
    first: float | None
    first_ms: int | None
    last: float | None
    last_ms: int | None
    min: float | None
    min_ms: int | None
    max: float | None
    max_ms: int | None
    good: int
    uncertain: int
    bad: int
    late: int


@dataclass(frozen=True, slots=True)
class HistoryStretch:
    """A stretch without GOOD values, ends as source times.

    kind: `no_data` (from a sample to the next, where that is longer than the tag's longest silence, two polls of its device
    and one timeout together, or than its `stale_after_s` if that is less: a sample that must have been taken is missing),
    `bad`, `uncertain` (from the first such sample to the first that is otherwise, or to the last before `no_data`),
    `damaged` (samples are stored and cannot be read: nobody knows what they say; it may overlap the others).
    """

    kind: Literal["no_data", "bad", "uncertain", "damaged"]
    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class History:
    """What the historian and the ledger hold of one tag in [from_ms, to_ms).

    Attributes:
        points: every sample, where they are at most `points_max`; `buckets` is empty then.
        buckets: else the samples by time, empty buckets left out; `bucket_ms` wide, and beginning at `from_ms`, or where
            they are 5 min and wider at a multiple of 5 min: the first and the last may then be cut by the range.
        gaps: stretches within the covered range, oldest first; at most 1 000, the longest; `gaps_left_out` counts the others.
        gaps_within_ms: how far an end of a gap may be off: 0, or 5 min over a long range that changes too often.
        truncated: not all of the range was read; only [covered_from_ms, to_ms) was, and `truncated_by` says why: `time`,
            `samples` or `ledger` (it could not be read just now). What lies before is not known: neither a gap nor calm.
        oldest_kept_ms: what lies before this is no longer kept (retention) or was never stored; None where nothing is.
        samples, late_samples, duplicates: samples shown, how many of them late, and how many copies were left out.
    """

    tag: str
    unit: str
    from_ms: int
    to_ms: int
    covered_from_ms: int
    truncated: bool
    truncated_by: Literal["", "time", "samples", "ledger"]
    oldest_kept_ms: int | None
    points: tuple[HistoryPoint, ...]
    buckets: tuple[HistoryBucket, ...]
    bucket_ms: int
    gaps: tuple[HistoryStretch, ...]
    gaps_left_out: int
    samples: int
    late_samples: int
    duplicates: int
    gaps_within_ms: int = 0


@dataclass(frozen=True, slots=True)
class TagWindows:
    """One tag's windows: columns, one entry a window that holds samples; columns that were not asked for are left empty.

    Attributes:
        start_ms: where each begins. samples, late: how many. good_share: of the samples, 0..1.
        first, last, min, max, mean: over samples that are not BAD, null without one; `*_ms` their source times, 0 without.
        silence_ms: the longest time from a sample to the next among those that begin in the window.
        damaged: [from, to] of samples that are stored and cannot be read: what lies there is not known.
    """

    tag: str
    unit: str
    start_ms: list[int]
    samples: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    good_share: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    first_ms: list[int] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    last_ms: list[int] = field(default_factory=list)
    min: list[float] = field(default_factory=list)
    min_ms: list[int] = field(default_factory=list)
    max: list[float] = field(default_factory=list)
    max_ms: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    silence_ms: list[int] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WindowList:
    """Windows of several tags over [from_ms, to_ms), `width_ms` wide, beginning at `from_ms`.

    Attributes:
        from_ms, width_ms: as asked; from 5 min on both are multiples of 5 min, `from_ms` downwards, `width_ms` upwards.
        truncated: samples that are not sealed yet were not all read in time: the newest windows may hold too few.
    """

    from_ms: int
    to_ms: int
    width_ms: int
    truncated: bool
    items: tuple[TagWindows, ...]
