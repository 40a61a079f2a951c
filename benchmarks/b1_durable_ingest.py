"""B1: samples a second from MQTT frames to evaluated, committed, acknowledged and stored.

Ours is the whole chain as it ships: edge sessions -> broker -> core (evaluates four limits a tag, commits with
synchronous=FULL, acknowledges) -> serve (seals into segments), load generator on the same cores. The generator keeps a
bounded number of frames unacknowledged, so nothing may be dropped: what was published must be committed, acknowledged and
stored, to the sample, and every excursion that was made must be in the journal, or the run fails.

Peers take rows like ours in the same run: InfluxDB 1.6, which is durable too, and VictoriaMetrics, which is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.b1_chain import BROKERS, SAMPLES_A_FRAME, SEAL_S, TAGS, Ingested, ingest
from benchmarks.b1_peers import DURABILITY as PEER_DURABILITY
from benchmarks.b1_peers import ROWS_A_REQUEST, Fed, feed
from benchmarks.harness import BenchmarkError, Outcome, RawDisk, Spread, spread
from benchmarks.stores import INFLUXD, KINDS, VICTORIA, installed

SECONDS: Final = 60
OTHER_BROKER_SHARE: Final = 4
"""The second broker runs for that part of the time."""
PER_S: Final = 200_000
TO_INFLUX: Final = 1.25
FSYNCS: Final = 200
NAMES: Final = {INFLUXD: "InfluxDB 1.6", VICTORIA: "VictoriaMetrics 1.79"}
STORE_LAG_S_MAX: Final = 2 * SEAL_S + 10.0
DURABLE: Final = (
    "ours: ledger SQLite WAL synchronous=FULL before the acknowledgement, sealed segments fsynced file and folder; "
    "InfluxDB: its log is synced with every answer; VictoriaMetrics: not durable when it answers"
)


def run(options: argparse.Namespace) -> Outcome:
    """Measure and judge; `--steps` is the seconds of ours. The data folder stays only when it was named."""
    seconds = options.steps or SECONDS
    folder = options.data or Path(tempfile.mkdtemp(prefix="hazardgate-b1-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BenchmarkError(f"{folder} is not empty; give another --data")
    try:
        disk = _disk(folder)
        load = os.getloadavg()[0]
        ours: list[Ingested] = []
        missing: list[str] = []
        for at, broker in enumerate(BROKERS):
            part = folder / broker
            part.mkdir()
            try:
                ours.append(asyncio.run(ingest(part, seconds / (OTHER_BROKER_SHARE if at else 1), broker, options.seed)))
            except BenchmarkError as error:
                if not at:
                    raise
                missing.append(f"{broker}: {error}")
        fed: list[Fed] = []
        for kind in KINDS:
            if installed(kind):
                fed.append(feed(kind, folder / kind, PER_S * seconds, options.seed))
            else:
                missing.append(f"{NAMES[kind]}: not installed here; not measured")
    finally:
        if options.data is None:
            shutil.rmtree(folder, ignore_errors=True)
    return judge(ours, fed, disk, missing, load)


def _disk(folder: Path) -> Spread:
    disk = RawDisk(folder)
    try:
        return spread([disk.once_ms() for _ in range(FSYNCS)])
    finally:
        disk.close()


def judge(ours: Sequence[Ingested], fed: Sequence[Fed], disk: Spread, missing: Sequence[str], load: float) -> Outcome:
    """Turn what was measured into table, figures and verdict; the first of ours decides."""
    first, peers = ours[0], {each.kind: each for each in fed}
    title = f"durable ingest, {TAGS} tags, {SAMPLES_A_FRAME}-sample frames at QoS 0, {first.published_s:.0f} s"
    outcome = Outcome("B1", title, DURABLE)
    outcome.figures = {
        "samples_per_s": round(first.per_s), "broker": first.broker, "published": first.published,
        "committed": first.committed, "acked": first.acked, "stored": first.stored,
        "alarms_made": first.alarms_made, "alarms_found": first.alarms_found,
        "store_lag_s": round(first.store_lag_s, 1), "most_unacked_frames": first.most_unacked,
        "messages_dropped": first.dropped, "commit_ms": {"p50": round(first.commit_ms[0], 2), "p99": round(first.commit_ms[1], 2)},
        "fsync_ms": disk.to_json(), "cpu_s_per_million": _rounded(first.cpu_s_per_million()),
        "cpu_us_per_frame": _rounded({name: 1e6 * used / first.frames for name, used in first.cpu_s.items()}),
        "other_brokers": {
            each.broker: {
                "samples_per_s": round(each.per_s), "whole": each.whole, "cpu_s_per_million": _rounded(each.cpu_s_per_million()),
            }
            for each in ours[1:]
        },
        "peers": {
            each.kind: {"rows_per_s": round(each.per_s), "rows": each.rows, "cpu_s_per_million": _rounded(each.cpu_s_per_million())}
            for each in fed
        },
        "load_average_before": round(load, 2),
    }  # fmt: skip
    outcome.ratios = {
        f"ours_to_{kind}": round(first.per_s / peers[kind].per_s, 2) if kind in peers else None for kind in KINDS
    }
    outcome.goal = {"samples_per_s": PER_S, "whole": True, "store_lag_s": STORE_LAG_S_MAX}
    outcome.held = {
        "samples_per_s": first.per_s >= PER_S, "whole": all(each.whole for each in ours),
        "store_lag_s": first.store_lag_s <= STORE_LAG_S_MAX,
    }  # fmt: skip
    outcome.rows = _rows(ours, fed)
    outcome.missing = list(missing)
    influx = outcome.ratios[f"ours_to_{INFLUXD}"]
    outcome.notes = [
        *(f"not whole on {each.broker}: published {each.published}, committed {each.committed}, acked {each.acked}, stored "
          f"{each.stored}; alarms made {each.alarms_made}, found {each.alarms_found}" for each in ours if not each.whole),
        f"ratio to InfluxDB {influx} (aim {TO_INFLUX}); peers get {ROWS_A_REQUEST} rows a request, value and quality",
        f"raw append + fdatasync, 4 KiB: p50 {disk.p50:.2f} ms, p99 {disk.p99:.2f} ms; a commit of ours: p50 "
        f"{first.commit_ms[0]:.2f} ms, p99 {first.commit_ms[1]:.2f} ms",
        f"the last sample was sealed {first.store_lag_s:.1f} s after the last acknowledgement (sealed every {SEAL_S:g} s)",
        f"{os.cpu_count()} cores, load generator included; load average {load:.1f} before",
    ]  # fmt: skip
    return outcome


def _rows(ours: Sequence[Ingested], fed: Sequence[Fed]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [["", "samples/s", "samples", "CPU s per M samples", "durable"]]
    for each in ours:
        shares = _shares(each.cpu_s_per_million())
        rows.append([f"ours, broker {each.broker}", f"{each.per_s:,.0f}", f"{each.samples:,}", shares, "yes"])
    for peer in fed:
        durable = PEER_DURABILITY[peer.kind]
        rows.append([NAMES[peer.kind], f"{peer.per_s:,.0f}", f"{peer.rows:,}", _shares(peer.cpu_s_per_million()), durable])
    return rows


def _shares(used: Mapping[str, float]) -> str:
    return f"{sum(used.values()):.2f} = " + " + ".join(f"{name} {seconds:.2f}" for name, seconds in used.items())


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}
