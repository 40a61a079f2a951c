"""B2's verdict on made-up measurements, and the small servers and parsers that its figures rest on."""

from __future__ import annotations

import argparse
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from alerting.delivery.signing import Signer, parse_secrets
from benchmarks.b2_alarm_latency import Measured, judge, run
from benchmarks.bare_chain import CONNACK, SUBACK, Mqtt, _length
from benchmarks.harness import BenchmarkError
from benchmarks.receiver import ANSWER, REFUSAL, Door, missing_sequences

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def measured(ours_ms: float = 4.0, bare_ms: float = 2.0, steps: int = 100) -> Measured:
    """A run without a fault."""
    return Measured(
        ours=[ours_ms] * steps, bare=[bare_ms] * steps, bare_alone=[bare_ms], fsync=[0.4] * steps,
        stages={"core": [1.0, 2.0]}, cpu={"core": 1.0}, seconds=20.0, webhook_bytes=1_255, load=(0.5, 1.0),
    )  # fmt: skip


def test_a_run_inside_all_limits_holds() -> None:
    found = judge(measured(), 100)
    assert found.holds
    assert found.ratios["ours_to_bare_p50"] == 2.0
    assert found.figures["ours_ms"] == {"count": 100, "p50": 4.0, "p99": 4.0, "max": 4.0}
    assert found.figures["cpu_percent"] == {"core": 5.0}


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        pytest.param(measured(ours_ms=10.1, bare_ms=9.0), {"p50_ms"}, id="median over 10 ms"),
        pytest.param(measured(ours_ms=6.1), {"p50_to_bare"}, id="more than 3 times the bare chain"),
        pytest.param(measured(steps=99), {"steps_without_webhook"}, id="a step that was never measured"),
    ],
)
def test_each_limit_is_judged_by_itself(found: Measured, missed: set[str]) -> None:
    verdict = judge(found, 100)
    assert {name for name, held in verdict.held.items() if not held} == missed
    assert not verdict.holds


def test_two_slow_webhooks_in_a_hundred_miss_the_p99_and_one_does_not() -> None:
    slow = measured()
    slow.ours[7] = 61.0
    assert judge(slow, 100).holds
    slow.ours[8] = 61.0
    assert judge(slow, 100).held["p99_ms"] is False


def test_a_lost_step_or_a_hole_in_the_sequence_is_a_miss_whatever_the_figures() -> None:
    lost, holed = measured(), measured()
    lost.lost, holed.gaps = ["S000001.PRESSURE raised no webhook within 15 s"], 1
    for wrong in (lost, holed):
        assert judge(wrong, 100).held["steps_without_webhook"] is False
    assert "lost: S000001.PRESSURE" in judge(lost, 100).text()


def test_the_table_has_ours_the_limit_the_disk_and_names_absent_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.b2_alarm_latency.shutil.which", lambda _: None)
    text = judge(measured(), 100).text()
    for part in ("ours: answer -> webhook byte", "bare chain, same minutes", "fdatasync", "synchronous=FULL"):
        assert part in text
    assert "missing: Prometheus + Alertmanager: not installed here; not measured" in text


def test_a_peer_that_is_installed_is_not_said_to_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.b2_alarm_latency.shutil.which", lambda name: f"/usr/bin/{name}")
    assert not any("not installed" in what for what in judge(measured(), 100).missing)


def test_a_run_without_a_single_webhook_is_no_measurement() -> None:
    nothing = Measured(lost=["S000001.PRESSURE was not read within 15 s"])
    with pytest.raises(BenchmarkError, match="was not read"):
        judge(nothing, 100)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger").touch()
    with pytest.raises(BenchmarkError, match="not empty"):
        run(argparse.Namespace(steps=1, seed=1, data=tmp_path))
    assert (tmp_path / "ledger").exists()


# -- the receiver --


class Wire:
    """What a door writes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written.append(data)


def webhook(body: bytes, *, timestamp_s: int | None = None) -> bytes:
    """A request as core sends it."""
    headers = Signer(parse_secrets("CITY", SECRET)).headers("n1", timestamp_s or int(time.time()), body)
    lines = [f"{name}: {text}" for name, text in headers.items()]
    return "\r\n".join(["POST /hooks/CITY HTTP/1.1", f"Content-Length: {len(body)}", *lines, "", ""]).encode() + body


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def door() -> tuple[Door, Wire]:
    made, wire = Door(Webhook(SECRET)), Wire()
    made.connection_made(wire)  # type: ignore[arg-type]
    return made, wire


BODY = json.dumps({
    "type": "alarm.raised", "data": {"lane": "red", "sequence": 3, "alarm": {"tag": "S1.PRESSURE", "limit": "H"}},
}).encode()  # fmt: skip


def test_the_door_stamps_the_first_byte_of_a_request_that_comes_in_pieces(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([5_000_000, 9_000_000])
    request = webhook(BODY)
    monkeypatch.setattr("benchmarks.receiver.time.time_ns", lambda: next(moments))
    made, wire = door()
    for piece in (request[:1], request[1:100], request[100:-1], request[-1:]):
        made.data_received(piece)
    made.data_received(b"POST /bare/17 HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    first, second = told(capsys)
    assert first == {
        "path": "/hooks/CITY", "at_ms": 5.0, "bytes": len(BODY), "verified": True, "id": "n1", "type": "alarm.raised",
        "tag": "S1.PRESSURE", "limit": "H", "lane": "red", "sequence": 3,
    }  # fmt: skip
    assert (second["number"], second["at_ms"]) == (17, 9.0)
    assert wire.written == [ANSWER, ANSWER]


def test_the_door_refuses_what_is_not_signed_by_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    made, wire = door()
    made.data_received(webhook(BODY).replace(b'"sequence": 3', b'"sequence": 4'))
    assert told(capsys)[0]["verified"] is False
    assert wire.written == [REFUSAL]


def test_holes_in_a_lane_are_counted_lane_by_lane() -> None:
    lines: list[dict[str, Any]] = [{"lane": "red", "sequence": n} for n in (1, 2, 4, 4, 7)]
    lines += [{"lane": "blue", "sequence": 1}, {"verified": False}, {"lane": "red", "sequence": None}]
    assert missing_sequences(lines) == 3


# -- the bare chain --


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384])
@pytest.mark.parametrize("cut", [1, 7, 100_000])
def test_the_bare_chain_reads_its_messages_however_the_bytes_are_cut(size: int, cut: int) -> None:
    got: list[bytes] = []
    mqtt = Mqtt(got.append)
    payload = bytes(size)
    message = b"\x30" + _length(size + 3) + b"\x00\x01t" + payload
    sent = bytes([CONNACK, 2, 0, 0]) + message + bytes([SUBACK, 3, 0, 1, 0]) + message
    for at in range(0, len(sent), cut):
        mqtt._received(sent[at : at + cut])
    assert got == [payload, payload]
    assert all(answered.is_set() for answered in mqtt._answered.values())
