"""The audit and the throttle that keeps it readable: one line an event, bounded, and never in anybody's way."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serve.audit import FILES_MAX, LINES_WAITING_MAX, TEXT_CHARS_MAX, Audit, one_line
from gateway.serve.audit_rate import LINES_A_MINUTE, AuditRate, Tried
from gateway.serve.audit_rate import WINDOW_S as RATE_S
from gateway.serve.throttle import ADDRESSES_MAX, FAILURES_MAX, WINDOW_S, Throttle, network_of
from tests.patience import GUARD_S
from tests.serve.fakes import Clock


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text("utf-8").split("\n")[:-1]]


@pytest.mark.fault("F57")
@given(st.text(), st.text())
def test_whatever_is_quoted_stays_one_line_that_reads_back(name: str, value: str) -> None:
    line = one_line({name: value, "event": "x"})
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if all(not "\ud800" <= char <= "\udfff" for char in name + value):
        assert json.loads(line) == {name: value[:TEXT_CHARS_MAX], "event": "x"} if name != "event" else True
    line.encode("utf-8")


def test_lines_are_appended_and_private(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text('{"event": "before"}\n', encoding="utf-8")
    audit = Audit(tmp_path, lambda: 7)
    audit.start()
    audit.write("act", name="李工", status=200)
    audit.close()
    assert written(tmp_path) == [{"event": "before"}, {"at_ms": 7, "event": "act", "name": "李工", "status": 200}]
    (tmp_path / "audit.jsonl").unlink()
    again = Audit(tmp_path, lambda: 7)
    again.start()
    again.write("act")
    again.close()
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_it_is_bounded_in_bytes_and_the_oldest_goes(tmp_path: Path) -> None:
    audit = Audit(tmp_path, lambda: 7, file_bytes_max=200)
    audit.start()
    for number in range(100):
        audit.write("act", number=number)
    audit.close()
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert len(files) == FILES_MAX
    assert all(file.stat().st_size <= 200 for file in files)
    assert written(tmp_path)[-1]["number"] == 99
    newest = [json.loads(line)["number"] for line in (tmp_path / "audit.1.jsonl").read_text("utf-8").splitlines()]
    assert newest[-1] + 1 == written(tmp_path)[0]["number"], "no line is lost between two files"


def test_a_disk_that_refuses_is_counted_and_nobody_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit(tmp_path / "absent", lambda: 7)
    audit.start()
    for _ in range(5):
        audit.write("act")
    audit.close()
    assert audit.lost == 5
    assert caplog.text.count("lines are lost") == 1


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold, opened = threading.Event(), os.open

    def hang(*arguments: object, **more: object) -> int:
        hold.wait(2 * GUARD_S)
        return opened(*arguments, **more)  # type: ignore[arg-type]

    audit = Audit(tmp_path, lambda: 7)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.serve.audit.os.open", hang)
        audit.start()
        for _ in range(LINES_WAITING_MAX + 50):
            audit.write("act")
        assert 48 <= audit.lost <= 50
        hold.set()
        audit.close()
    assert len(written(tmp_path)) == LINES_WAITING_MAX + 50 - audit.lost


# ------------------------------------------------------------------ its rate


def test_what_a_token_may_not_do_gets_a_few_lines_a_minute_and_a_count() -> None:
    clock = Clock()
    rate = AuditRate(clock)
    li, wang = Tried("write_attempt", "a1", "li"), Tried("write_attempt", "a2", "wang")
    assert [rate.take(li) for _ in range(LINES_A_MINUTE + 3)] == [True] * LINES_A_MINUTE + [False] * 3
    assert rate.take(wang), "each token for itself"
    assert rate.take(li._replace(event="forbidden")), "each kind for itself"
    clock.now_s += RATE_S - 0.1
    assert rate.held_back() == {}
    assert not rate.take(li)
    clock.now_s += 0.1
    assert rate.held_back() == {li: 4}
    assert rate.take(li), "a new minute"
    assert rate.held_back() == rate.held_back(ending=True) == {}, "told once"


def test_what_was_held_back_is_one_line_once_the_minute_is_over_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serve.audit.SYNC_S", 0.01)
    clock, path = Clock(), tmp_path / "audit.jsonl"
    audit = Audit(tmp_path, lambda: 7, monotonic=clock)
    audit.start()
    for minute in (1, 2):
        for _ in range(LINES_A_MINUTE + 5):
            audit.write_at_rate("write_attempt", name="li", id="a1")
            audit.write("act", name="li", id="a1")
        clock.now_s += RATE_S
        until = time.monotonic() + GUARD_S
        while not path.exists() or path.read_text("utf-8").count("held_back") < minute:
            assert time.monotonic() < until, "nobody has to try again for it to be told"
            time.sleep(0.005)
    for _ in range(LINES_A_MINUTE + 1):
        audit.write_at_rate("forbidden", name="li", id="a1")
    audit.close()
    told = written(tmp_path)
    counts = Counter(line["event"] for line in told)
    assert counts["act"] == 2 * (LINES_A_MINUTE + 5), "every act is there"
    assert (counts["write_attempt"], counts["forbidden"]) == (2 * LINES_A_MINUTE, LINES_A_MINUTE)
    held = [line for line in told if line["event"] == "held_back"]
    assert held[0] == {"at_ms": 7, "event": "held_back", "of": "write_attempt", "name": "li", "id": "a1", "count": 5}
    assert sum(int(str(line["count"])) for line in held) == 5 + 5 + 1


# ------------------------------------------------------------------ the throttle


def test_the_minute_slides_and_the_audit_hears_of_it_once() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert [throttle.failed("10.0.0.1") for _ in range(FAILURES_MAX)] == [(0.0, False)] * FAILURES_MAX
    assert throttle.failed("10.0.0.1") == (WINDOW_S, False)
    clock.now_s += 20
    assert throttle.failed("10.0.0.1") == (WINDOW_S - 20, True)
    assert throttle.failed("10.0.0.2") == (0.0, False)
    clock.now_s += WINDOW_S - 20
    assert throttle.failed("10.0.0.1") == (0.0, False)


def test_it_is_bounded_in_addresses_and_the_busiest_stay() -> None:
    throttle = Throttle(Clock())
    for _ in range(FAILURES_MAX):
        throttle.failed("10.9.9.9")
    for number in range(ADDRESSES_MAX * 2):
        throttle.failed(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
        throttle.failed("10.9.9.9")
    assert len(throttle._of) <= ADDRESSES_MAX
    assert throttle.failed("10.9.9.9")[0] > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.1"), ("2001:db8:1:2::7", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("unix", "unix"),
        ("x" * 100, "x" * 64),
    ],
)  # fmt: skip
def test_one_client_is_an_address_or_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
