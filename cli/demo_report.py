"""The demo's final account: what was taken, committed, acknowledged, raised, delivered; all of it measured.

Four independent books are compared: the plant's (which limits its registers crossed), the edges' (samples synced to
disk), the ledger's (samples committed, journal, alarms, outbox) and the platform's (webhooks whose signature it
verified). Every crossing has its alarm, every alarm its journal, every journalled step a notice for each receiver that
wants it, every notice its verified webhook.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

from alerting import LATE_REVISION_FIRST, Transition
from alerting.delivery import NoticePlanner
from cli.crossings import demands
from cli.json_files import read_json_file
from cli.language import say
from config import Grade, SiteConfig
from gateway.core import LEDGER_NAME, LedgerReader
from simulators import CHANGES_FILE, READS_FILE, WRITE_CODES, read_json_lines
from wire import decode_block

ALARM_S_MAX: Final = 2.0  # a crossing read so shortly before the end may still be on its way to an alarm
LISTED_MAX: Final = 20
PAGE_ROWS: Final = 2_000


def account(
    site: SiteConfig, folder: Path, *, scenario: str, ran_s: float, ended_ms: int, restarts: dict[str, int]
) -> dict[str, Any]:
    """Draw up the account of a finished run.

    Alarms that began after `ended_ms` are the demo's own doing (it stops its edges), and so are the webhooks about them:
    neither is counted. `missing` lists in words what should be there and is not, or is there and should not be.
    """
    reader = LedgerReader.open(folder / "core" / LEDGER_NAME)
    try:
        committed = committed_samples(reader)
        alarms = [
            (json.loads(body), start_ms)
            for body, start_ms in reader.rows("SELECT body, start_ms FROM alarm ORDER BY start_ms LIMIT 1000000")
        ]
        outbox = reader.rows("SELECT notice_id, receiver, transition_id, state FROM outbox LIMIT 1000000")
        of_stopping = {(receiver, notice) for notice, receiver in reader.rows(
            "SELECT notice_id, receiver FROM outbox WHERE transition_id IN (SELECT transition.id FROM transition"
            " JOIN alarm ON alarm.id = alarm_id WHERE start_ms > ?) LIMIT 1000000", (ended_ms,)
        )}  # fmt: skip
        losses = reader.rows("SELECT node, stream, first, last, cause FROM loss LIMIT 1000")
        journal = _missing_in_journal(reader, site, {(row[1], row[0]) for row in outbox})
    finally:
        reader.close()
    edges = [read_json_file(folder / "edges" / edge.id / "status.json") for edge in site.edges]
    received = [line for line in read_json_lines(folder / "platform" / "received.jsonl") if "id" in line]
    rejected = sum("rejected" in line for line in read_json_lines(folder / "platform" / "received.jsonl"))
    heartbeat = read_json_file(folder / "core" / "heartbeat.json")
    taken, acked = (sum(int(edge.get(key, 0)) for edge in edges) for key in ("samples_taken", "samples_acked"))
    notices = [line for line in received if line["type"] != "heartbeat"]
    latencies = _latencies(folder, notices)
    before_end = [alarm for alarm, start_ms in alarms if start_ms <= ended_ms]
    killed = any(f"edge-{edge.id}" in restarts for edge in site.edges)
    missing = _missing_samples(taken, committed, acked, losses, surplus=killed)
    missing += journal
    missing += _missing_webhooks(outbox, notices, rejected)
    missing += _missing_alarms(site, folder, before_end, ended_ms)
    writes = count_write_requests(folder)
    if writes:
        missing.append(say(
            f"仪表收到 {writes} 个写请求；应为 0",
            f"{writes} write requests reached an instrument; there must be none",
        ))  # fmt: skip
    return {
        "scenario": scenario,
        "seconds": round(ran_s, 1),
        "samples": {"taken": taken, "committed": committed, "acked": acked},
        "alarms": _by_grade(before_end),
        "alarms_by_category": dict(sorted(Counter(alarm["category"] for alarm in before_end).items())),
        "webhooks_verified": len({(line["receiver"], line["id"]) for line in notices} - of_stopping),
        "duplicates_dropped": {
            "frames": int(heartbeat.get("duplicates_dropped", 0)),
            "webhooks": sum(bool(line["duplicate"]) for line in notices),
        },
        "change_to_webhook_ms": _quantiles([latency for latency, _ in latencies]),
        "read_to_webhook_ms": _quantiles([latency for _, latency in latencies]),
        "heartbeats_verified": sum(line["type"] == "heartbeat" for line in received),
        "write_requests": writes,
        "restarts": restarts,
        "missing": missing,
    }


def in_words(report: dict[str, Any]) -> list[str]:
    """Return the account as lines for people."""
    samples, alarms = report["samples"], report["alarms"]
    latency, duplicates = report["read_to_webhook_ms"], report["duplicates_dropped"]
    lines = [
        say(
            f"样本：采集 {samples['taken']}，提交 {samples['committed']}，确认 {samples['acked']}",
            f"samples: {samples['taken']} taken, {samples['committed']} committed, {samples['acked']} acknowledged",
        ),
        say(
            f"累计报警：红 {alarms['red']}，橙 {alarms['orange']}，黄 {alarms['yellow']}，蓝 {alarms['blue']}",
            f"raised in total: {alarms['red']} red, {alarms['orange']} orange, {alarms['yellow']} yellow, {alarms['blue']} blue",
        ),
        say(
            f"通知：平台验签 {report['webhooks_verified']} 条，丢弃重复 {duplicates['webhooks']} 条",
            f"notices: {report['webhooks_verified']} verified by the platform, {duplicates['webhooks']} duplicates dropped",
        ),
    ]
    if latency["count"]:
        total = report["change_to_webhook_ms"]
        lines.append(say(
            f"寄存器变化到平台验签：p50 {total['p50']:.0f} 毫秒，p99 {total['p99']:.0f} 毫秒"
            f"（其中读出之后 {latency['p50']:.0f} / {latency['p99']:.0f}）",
            f"change to verified webhook: p50 {total['p50']:.0f} ms, p99 {total['p99']:.0f} ms"
            f" ({latency['p50']:.0f} / {latency['p99']:.0f} after the read)",
        ))  # fmt: skip
    missing = [say(f"缺失：{problem}", f"missing: {problem}") for problem in report["missing"]]
    return lines + (missing or [say("没有缺失", "nothing is missing")])


def committed_samples(reader: LedgerReader) -> int:
    """Count the samples of all frames in the ledger; a frame that came live and in a block counts once."""
    total = 0
    seen: dict[tuple[str, int], set[int]] = {}
    pos = 0
    while True:
        rows = reader.rows(
            "SELECT pos, kind, node, stream, first, samples, body FROM log WHERE pos > ? AND kind IN ('F', 'B')"
            " ORDER BY pos LIMIT 5000",
            (pos,),
        )
        if not rows:
            return total
        for pos, kind, node, stream, first, samples, body in rows:  # noqa: B007 - pos continues the query
            numbers = seen.setdefault((node, stream), set())
            if kind == "F":
                if first not in numbers:
                    numbers.add(first)
                    total += samples
                continue
            block = decode_block(body)
            fresh = set(range(block.first, block.last + 1)) - numbers
            for column in block.columns:
                total += sum(int(number) in fresh for number in column.sequence)
            numbers |= fresh


def count_write_requests(folder: Path) -> int:
    """Count requests with a write function code in the plant's own log."""
    codes = {int(code) for code in WRITE_CODES}
    path = folder / "plant" / "requests.jsonl"
    return sum(line.get("function") in codes for line in read_json_lines(path))


def _missing_samples(
    taken: int, committed: int, acked: int, losses: list[tuple[Any, ...]], *, surplus: bool
) -> list[str]:
    """Compare what the edges took with what arrived.

    Args:
        surplus: an edge was killed, so more may have arrived than its own disk has: a frame is published while it is
            written (decision 7).
    """
    missing = []
    if taken == 0:
        missing.append(say("没有采集到任何样本", "no sample was taken at all"))
    if committed < taken or (committed > taken and not surplus):
        missing.append(say(f"采集 {taken} 个样本，提交 {committed} 个", f"{taken} samples taken, {committed} committed"))
    if acked != taken:
        missing.append(say(f"采集 {taken} 个样本，确认 {acked} 个", f"{taken} samples taken, {acked} acknowledged"))
    for node, stream, first, last, cause in losses:
        known = f" {first or '?'}-{last or '?'}" if first or last else ""
        span = f"{node} {stream}{known} {cause}"
        missing.append(say(f"有丢失记录：{span}", f"loss on record: {span}"))
    return missing


def _missing_in_journal(reader: LedgerReader, site: SiteConfig, outbox: set[tuple[str, str]]) -> list[str]:
    """Compare the journal with the alarms and with the outbox, `(receiver, notice id)`; the planner is asked anew."""
    planner = NoticePlanner.compile(site)
    planned: set[tuple[str, str]] = set()
    missing, row = [], 0
    while page := reader.rows("SELECT row, body FROM transition WHERE row > ? ORDER BY row LIMIT ?", (row, PAGE_ROWS)):
        row = page[-1][0]
        steps = [Transition.from_json(json.loads(body)) for _, body in page]
        planned.update((notice.receiver, notice.id) for notice in planner.plan(steps, 0))
    for receiver, notice in sorted(planned - outbox)[:LISTED_MAX]:
        missing.append(say(
            f"已入账的步骤没有给 {receiver} 的通知 {notice}", f"a journalled step has no notice {notice} for {receiver}"
        ))  # fmt: skip
    for receiver, notice in sorted(outbox - planned)[:LISTED_MAX]:
        missing.append(say(
            f"给 {receiver} 的通知 {notice} 没有入账的步骤", f"notice {notice} for {receiver} has no journalled step"
        ))  # fmt: skip
    for (alarm,) in reader.rows(
        "SELECT id FROM alarm WHERE id NOT IN (SELECT alarm_id FROM transition WHERE kind = 'raised') LIMIT ?",
        (LISTED_MAX,),
    ):
        missing.append(say(f"报警 {alarm} 没有入账", f"alarm {alarm} is not in the journal"))
    for (alarm,) in reader.rows(
        "SELECT alarm_id FROM transition GROUP BY alarm_id"
        " HAVING min(revision) NOT IN (1, ?) OR count(*) <> max(revision) - min(revision) + 1 LIMIT ?",
        (LATE_REVISION_FIRST, LISTED_MAX),
    ):
        missing.append(say(f"报警 {alarm} 的步骤有缺号", f"the steps of alarm {alarm} have gaps"))
    return missing


def _missing_webhooks(outbox: list[tuple[Any, ...]], notices: list[dict[str, Any]], rejected: int) -> list[str]:
    got = {(line["receiver"], line["id"]) for line in notices if line["sequence"] is not None}
    absent = [row for row in outbox if (row[1], row[0]) not in got]
    missing = [
        say(f"给 {row[1]} 的通知 {row[0]} 未到达平台", f"notice {row[0]} for {row[1]} never reached the platform")
        for row in absent[:LISTED_MAX]
    ]
    lanes: dict[tuple[str, str, str], set[int]] = {}
    for line in notices:
        if line["sequence"] is not None:
            lanes.setdefault((line["receiver"], line["ledger"], line["lane"]), set()).add(line["sequence"])
    for (receiver, _, lane), numbers in lanes.items():
        if numbers != set(range(1, max(numbers) + 1)):
            missing.append(say(f"{receiver} {lane} 的序号有缺号", f"sequence of {receiver} {lane} has gaps"))
    if rejected:
        missing.append(say(f"平台拒收 {rejected} 条通知", f"the platform rejected {rejected} webhooks"))
    return missing


def _missing_alarms(site: SiteConfig, folder: Path, alarms: list[dict[str, Any]], ended_ms: int) -> list[str]:
    """Every crossing that an instrument showed to a reader has its alarm, and no alarm is without a crossing."""
    plant = folder / "plant"
    wanted = demands(
        site, read_json_lines(plant / CHANGES_FILE), read_json_lines(plant / READS_FILE), ended_ms - ALARM_S_MAX * 1000
    )
    raised = Counter((alarm["tag"], alarm["limit"]) for alarm in alarms)
    live = Counter((alarm["tag"], alarm["limit"]) for alarm in alarms if not alarm["late"])
    missing = []
    for (tag, limit), demand in wanted.items():
        count = raised[tag, limit]
        if count < demand.least:
            missing.append(say(
                f"{tag} 至少 {demand.least} 次越过 {limit}，只有 {count} 次报警",
                f"{tag} crossed {limit} at least {demand.least} times and raised {count} alarms",
            ))  # fmt: skip
        if demand.most is not None and live[tag, limit] > demand.most:
            missing.append(say(
                f"{tag} {demand.most} 次越过 {limit}，却有 {live[tag, limit]} 次报警",
                f"{tag} crossed {limit} {demand.most} times and raised {live[tag, limit]} alarms",
            ))  # fmt: skip
    return missing[:LISTED_MAX]


def _latencies(folder: Path, notices: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Pair each first crossing with the first webhook about it: ms from the register change, and from its read."""
    reads = {line["number"]: line["read_ms"] for line in read_json_lines(folder / "plant" / READS_FILE)}
    raised: dict[tuple[str, str], list[float]] = {}
    for line in notices:
        if line["type"] == "alarm.raised" and not line["duplicate"] and not line["late"]:
            raised.setdefault((line["tag"], line["limit"]), []).append(line["received_ms"])
    pairs = []
    for change in read_json_lines(folder / "plant" / CHANGES_FILE):
        read_ms = reads.get(change["number"])
        if not change["over"] or change["on_delay_s"] or read_ms is None:
            continue
        after = [at_ms for at_ms in raised.get((change["tag"], change["limit"]), ()) if at_ms >= read_ms]
        if after and min(after) - read_ms < ALARM_S_MAX * 1000:
            pairs.append((min(after) - change["at_ms"], min(after) - read_ms))
    return pairs


def _quantiles(values: list[float]) -> dict[str, float | int | None]:
    ordered = sorted(values)
    if not ordered:
        return {"count": 0, "p50": None, "p99": None}

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 2)

    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99)}


def _by_grade(alarms: list[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(int(alarm["grade"]) for alarm in alarms)
    return {grade.word: counts[int(grade)] for grade in sorted(Grade, reverse=True)}
