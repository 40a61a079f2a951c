"""The other end of core for its tests: a small site, and edge nodes that publish, lose, resend and forget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from config import SiteConfig
from wire import (
    BDSEQ,
    CLOCK_SYNCED,
    CONFIG_HASH,
    REBIRTH,
    SPOOL_BLOCK,
    SPOOL_FAULT,
    SPOOL_PREDECESSOR,
    SPOOL_PREDECESSOR_LAST,
    SPOOL_SEQUENCE,
    SPOOL_STREAM,
    SPOOL_UNFINISHED,
    BlockColumn,
    DataType,
    Dropped,
    MessageKind,
    Metric,
    Native,
    Quality,
    SpoolBlock,
    StreamSpan,
    Topic,
    build_topic,
    encode_block,
    encode_data,
    encode_payload,
    quality_code,
    sample_metric,
    unfinished_table,
)

GOOD = quality_code(Quality.GOOD)
GUIDANCE = "Go and look at the tank from up wind."
GROUP = "PARK1"
T0_MS = 1_700_000_000_000

LEVEL, PRESSURE, GAS, TEMP = "T1.LEVEL", "T1.PRESSURE", "G1.CL2", "P1.TEMP"
DEVICE_OF = {LEVEL: "TANK", PRESSURE: "TANK", GAS: "GAS", TEMP: "PUMP"}
TAGS_OF = {"E1": (LEVEL, PRESSURE, GAS), "E2": (TEMP,)}


def _limit(setpoint: float, deadband: float, grade: str, **more: Any) -> dict[str, Any]:
    return {"setpoint": setpoint, "deadband": deadband, "grade": grade, "guidance": GUIDANCE, **more}


def _tag(name: str, quantity: str, unit: str, high: float, limits: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": name, "name": name, "equipment": "V1", "quantity": quantity, "unit": unit,
        "range": {"low": 0, "high": high}, "limits": dict(limits), "fault_delay_s": 0,
    }  # fmt: skip


def _device(name: str, tags: Iterable[str]) -> dict[str, Any]:
    points = [{"tag": tag, "table": "holding", "address": 4 * at, "type": "f64"} for at, tag in enumerate(tags)]
    return {"id": name, "bus": "B1", "unit": 1 + len(name), "points": points}


@cache
def site(*, receivers: int = 1) -> SiteConfig:
    """A tank and a gas detector at edge E1, a pump at edge E2. LEVEL has H 10 and HH 20; PRESSURE an on-delay."""
    both = {"zh": "甲", "en": "A"}
    return SiteConfig.model_validate(
        {
            "version": 1, "site": GROUP, "name": both,
            "region": {level: {"code": "1", "name": both} for level in ("city", "county", "park", "enterprise")},
            "hazard_sources": [
                {"id": "H1", "name": both, "kind": "storage", "equipment": [{"id": "V1", "name": both, "kind": "tank"}]}
            ],
            "tags": [
                _tag(LEVEL, "level", "m", 30, {"H": _limit(10, 1, "yellow"), "HH": _limit(20, 1, "red")}),
                _tag(PRESSURE, "pressure", "MPa", 2, {"H": _limit(1, 0.1, "orange", on_delay_s=2, off_delay_s=1)}),
                _tag(GAS, "toxic_gas", "mg/m3", 10, {"H": _limit(1, 0.5, "red")}),
                _tag(TEMP, "temperature", "°C", 100, {"H": _limit(60, 2, "blue")}),
            ],
            "receivers": [
                {"id": f"CITY{at}", "name": both, "url": "http://127.0.0.1:9/hooks", "secret_env": "HOOK_SECRET",
                 "plain_http_ranges": ["127.0.0.0/8"]}
                for at in range(receivers)
            ],
            "edges": [
                {"id": edge, "buses": [{"id": "B1", "host": "127.0.0.1", "port": 15020}],
                 "devices": [_device(device, [tag for tag in tags if DEVICE_OF[tag] == device])
                             for device in dict.fromkeys(DEVICE_OF[tag] for tag in tags)]}
                for edge, tags in TAGS_OF.items()
            ],
        }
    )  # fmt: skip


def topic(kind: MessageKind, node: str, device: str | None = None) -> Topic:
    return Topic(kind, GROUP, node, device)


def address(kind: MessageKind, node: str, device: str | None = None) -> str:
    return build_topic(topic(kind, node, device))


def int64(name: str, value: int) -> Metric:
    return Metric(name, timestamp_ms=T0_MS, datatype=DataType.INT64, value=value)


def flag(name: str, value: bool) -> Metric:
    return Metric(name, timestamp_ms=T0_MS, datatype=DataType.BOOLEAN, value=value)


def node_birth(
    bdseq: int = 0, live: int = 0, last: int = 0, predecessor: tuple[int, int] = (0, 0),
    unfinished: Sequence[StreamSpan] = (), *, extra: Sequence[Metric] = (), seq: int = 0,
    config_hash: str = "", spool_fault: bool = False,
) -> bytes:  # fmt: skip
    """NBIRTH; of a node of ours when `live` is given."""
    metrics = [int64(BDSEQ, bdseq), flag(REBIRTH, False)]
    if live:
        metrics += [
            int64(SPOOL_STREAM, live), int64(SPOOL_SEQUENCE, last), int64(SPOOL_PREDECESSOR, predecessor[0]),
            int64(SPOOL_PREDECESSOR_LAST, predecessor[1]),
            Metric(SPOOL_UNFINISHED, timestamp_ms=T0_MS, datatype=DataType.DATASET, value=unfinished_table(unfinished)),
            flag(SPOOL_FAULT, spool_fault), flag(CLOCK_SYNCED, True),
            Metric(CONFIG_HASH, timestamp_ms=T0_MS, datatype=DataType.STRING, value=config_hash),
        ]  # fmt: skip
    return encode_payload(T0_MS, seq, [*metrics, *extra])


def node_death(bdseq: int = 0) -> bytes:
    return encode_payload(T0_MS, None, [int64(BDSEQ, bdseq)])


def device_birth(
    seq: int, values: Mapping[str, float], stream: int = 0, sequence: int = 0, source_ms: int = T0_MS,
    datatype: DataType = DataType.DOUBLE, first_alias: int = 1,
) -> bytes:  # fmt: skip
    """DBIRTH that declares every tag of `values` under aliases from `first_alias` on."""
    marks = [int64(SPOOL_STREAM, stream), int64(SPOOL_SEQUENCE, sequence)] if stream else []
    samples = [
        sample_metric(tag, first_alias + at, source_ms, value, GOOD if math.isfinite(value) else 5, datatype)
        for at, (tag, value) in enumerate(values.items())
    ]
    return encode_payload(T0_MS, seq, [*marks, *samples])


def device_frame(
    seq: int, samples: Sequence[tuple[int, float]], stream: int = 0, sequence: int = 0, source_ms: int = T0_MS
) -> bytes:
    """DDATA of (alias, value) pairs."""
    return encode_data(
        T0_MS, seq, stream, sequence, np.array([alias for alias, _ in samples], np.int64),
        np.array([value for _, value in samples], np.float64),
        np.array([GOOD if math.isfinite(value) else 5 for _, value in samples], np.uint8),
        np.full(len(samples), source_ms, np.int64),
    )  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """A frame as an edge keeps it."""

    stream: int
    sequence: int
    device: str
    values: tuple[tuple[str, float], ...]
    source_ms: int


def block(
    node: str, frames: Sequence[Taken], first: int = 0, last: int = 0, predecessor: tuple[int, int] = (0, 0),
    dropped: Sequence[tuple[int, int]] = (), stream: int = 0,
) -> bytes:  # fmt: skip
    """Pack frames of one stream as a spool block."""
    rows: dict[str, list[tuple[int, int, float]]] = {}
    device_of: dict[str, str] = {}
    for frame in frames:
        for tag, value in frame.values:
            rows.setdefault(tag, []).append((frame.sequence, frame.source_ms, value))
            device_of[tag] = frame.device
    columns = [
        BlockColumn(
            tag, device_of[tag], Native.F64, 1.0, 0.0,
            np.array([sequence for sequence, _, _ in samples], np.int64),
            np.array([source_ms for _, source_ms, _ in samples], np.int64),
            np.array([value for _, _, value in samples], np.float64).view(np.uint64),
            np.array([GOOD if math.isfinite(value) else 5 for _, _, value in samples], np.uint8),
        )
        for tag, samples in rows.items()
    ]  # fmt: skip
    return encode_block(
        SpoolBlock(
            node, stream or frames[0].stream, first or frames[0].sequence, last or frames[-1].sequence, *predecessor,
            tuple(columns), tuple(Dropped(lo, hi, "disk full") for lo, hi in dropped),
        )
    )  # fmt: skip


def block_message(seq: int, body: bytes) -> bytes:
    metric = Metric(SPOOL_BLOCK, timestamp_ms=T0_MS, datatype=DataType.BYTES, value=body)
    return encode_payload(T0_MS, seq, [metric])


Sent = tuple[str, bytes]


@dataclass
class HeldStream:
    """What an edge knows of one stream."""

    stream: int
    predecessor: tuple[int, int]
    last: int = 0
    acked: int = 0
    frames: dict[int, Taken] = field(default_factory=dict)

    @property
    def span(self) -> StreamSpan:
        return StreamSpan(self.stream, self.acked + 1, self.last, *self.predecessor)


class Edge:
    """An edge node of ours, by the rules of the wire: numbers what it takes, keeps it until it is acknowledged.

    Every method that publishes returns (topic, payload) pairs; the caller decides which of them arrive.
    """

    def __init__(self, node: str = "E1", first_stream: int = 1_000) -> None:
        self.node, self.tags = node, TAGS_OF[node]
        self.devices = list(dict.fromkeys(DEVICE_OF[tag] for tag in self.tags))
        self.alias = {tag: at + 1 for at, tag in enumerate(self.tags)}
        self.present = dict.fromkeys(self.tags, 0.0)
        self.source_ms = T0_MS
        self.bdseq = 0
        self.seq = 0
        self._next_stream = first_stream
        self.streams: dict[int, HeldStream] = {}
        self.newest = (0, 0)
        self.live = 0
        self.taken: list[Taken] = []

    def _open(self) -> None:
        if self.live and self.streams[self.live].last == 0:
            return
        if self.live:
            self.newest = (self.live, self.streams[self.live].last)
        self._next_stream += 1
        self.live = self._next_stream
        self.streams[self.live] = HeldStream(self.live, self.newest)

    def _take(self, device: str, values: tuple[tuple[str, float], ...]) -> Taken:
        held = self.streams[self.live]
        held.last += 1
        frame = Taken(self.live, held.last, device, values, self.source_ms)
        held.frames[frame.sequence] = frame
        self.taken.append(frame)
        return frame

    def _seq(self) -> int:
        self.seq = (self.seq + 1) % 256
        return self.seq

    def born(self, *, new_stream: bool = True) -> list[Sent]:
        """Begin a session, or answer a rebirth request (`new_stream` False)."""
        if new_stream or not self.live:
            self._open()
        held = self.streams[self.live]
        self.seq = 0
        # A stream with nothing left to acknowledge is finished and not listed, but for the live one.
        unfinished = [each.span for each in self.streams.values() if each.acked < each.last or each is held]
        sent = [
            (address(MessageKind.NBIRTH, self.node),
             node_birth(self.bdseq, self.live, held.last, held.predecessor, unfinished[:256]))
        ]  # fmt: skip
        for device in self.devices:
            values = {tag: self.present[tag] for tag in self.tags if DEVICE_OF[tag] == device}
            frame = self._take(device, tuple(values.items()))
            metrics = device_birth(self._seq(), values, frame.stream, frame.sequence, self.source_ms,
                                   first_alias=self.alias[next(iter(values))])  # fmt: skip
            sent.append((address(MessageKind.DBIRTH, self.node, device), metrics))
        return sent

    def scan(self, values: Mapping[str, float], after_ms: int = 100) -> list[Sent]:
        """Take the values of one device and publish them."""
        self.source_ms += after_ms
        self.present.update(values)
        device = DEVICE_OF[next(iter(values))]
        frame = self._take(device, tuple(values.items()))
        payload = device_frame(
            self._seq(), [(self.alias[tag], value) for tag, value in values.items()], frame.stream, frame.sequence,
            self.source_ms,
        )  # fmt: skip
        return [(address(MessageKind.DDATA, self.node, device), payload)]

    def offline_scan(self, values: Mapping[str, float], after_ms: int = 100) -> None:
        """Take values with nobody to send them to."""
        self.source_ms += after_ms
        self.present.update(values)
        self._take(DEVICE_OF[next(iter(values))], tuple(values.items()))

    def session_lost(self) -> None:
        """The session ended: what follows is another stream."""
        self._open()
        self.bdseq = (self.bdseq + 1) % 256

    def death(self) -> list[Sent]:
        return [(address(MessageKind.NDEATH, self.node), node_death(self.bdseq))]

    def backlog(self, frames_max: int = 50) -> list[Sent]:
        """Publish what sealed streams still hold, in blocks."""
        sent = []
        for held in self.streams.values():
            numbers = [number for number in sorted(held.frames) if number > held.acked]
            if held.stream == self.live or not numbers:
                continue
            for at in range(0, len(numbers), frames_max):
                part = [held.frames[number] for number in numbers[at : at + frames_max]]
                body = block(self.node, part, predecessor=held.predecessor)
                sent.append((address(MessageKind.NDATA, self.node), block_message(self._seq(), body)))
        return sent

    def acked(self, stream: int, upto: int) -> None:
        """Forget what is acknowledged."""
        held = self.streams.get(stream)
        if held is None:
            return
        assert upto <= held.last, "acknowledged more than was ever taken"
        held.acked = max(held.acked, upto)
        for number in [number for number in held.frames if number <= held.acked]:
            del held.frames[number]

    @property
    def settled(self) -> bool:
        """Everything taken is acknowledged."""
        return all(held.acked == held.last for held in self.streams.values())


