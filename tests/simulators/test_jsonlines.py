"""Logs that can be read while they are written, survive a torn end, and stop growing at their cap."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulators import NotLoopbackError, read_json_lines
from simulators.jsonlines import BUFFERED_LINES_MAX, JsonLines, check_loopback, cut_torn_line, write_json


def test_lines_reach_the_file_with_flush_and_after_a_full_buffer(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "a" / "log.jsonl")
    log.write({"n": 0})
    assert list(read_json_lines(log.path)) == []
    log.write({"n": 1}, flush=True)
    assert list(read_json_lines(log.path)) == [{"n": 0}, {"n": 1}]
    for n in range(BUFFERED_LINES_MAX):
        log.write({"n": n})
    assert len(list(read_json_lines(log.path))) == BUFFERED_LINES_MAX + 2
    log.close()
    log.close()


def test_past_its_cap_a_log_says_so_once_and_counts(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl", bytes_max=20)
    for n in range(10):
        log.write({"number": n})
    log.close()
    lines = list(read_json_lines(log.path))
    assert [line.get("number") for line in lines] == [0, 1, None]
    assert lines[-1]["truncated"] is True
    assert log.dropped == 8


@pytest.mark.parametrize(("octets", "kept"), [(b'{"n":1}\n{"n":', 8), (b'{"n":1}\n', 8), (b'{"n"', 0), (b"", 0)])
def test_a_torn_last_line_is_left_out_and_cut(tmp_path: Path, octets: bytes, kept: int) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(octets)
    assert len(list(read_json_lines(path))) == kept // 8
    assert cut_torn_line(path) == len(octets) - kept
    assert path.stat().st_size == kept


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    write_json(tmp_path / "x.json", {"市": 2})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{"市": 2}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org", ""])
def test_anything_but_loopback_is_refused(host: str) -> None:
    with pytest.raises(NotLoopbackError):
        check_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_accepted(host: str) -> None:
    check_loopback(host)
