"""Log records cannot be forged, not even by what an exception quotes."""

from __future__ import annotations

import logging
import sys

import pytest

from cli.running import LOG_FORMAT, OneLineFormatter

FORGED = "2026-01-01 00:00:00,000 CRITICAL core all is well"
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]


def formatted(message: str, error: BaseException | None = None, stack: str | None = None) -> str:
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    record = logging.LogRecord("core", logging.ERROR, __file__, 1, "%s", (message,), info, sinfo=stack)
    return OneLineFormatter(LOG_FORMAT).format(record)


def records(text: str) -> list[str]:
    """The lines a reader takes for records of their own."""
    return [line for line in text.splitlines() if not line.startswith("  | ")]


@pytest.mark.fault("F57")
@pytest.mark.parametrize("line_break", BREAKS)
def test_a_message_is_one_line(line_break: str) -> None:
    text = formatted(f"tag T{line_break}{FORGED}")
    assert len(text.splitlines()) == 1
    assert text.isprintable()


@pytest.mark.fault("F57")
@pytest.mark.parametrize("line_break", BREAKS)
def test_an_exception_cannot_forge_a_record(line_break: str) -> None:
    error = ValueError(f"x{line_break}{FORGED}\x1b[2J")
    error.add_note(f"note{line_break}{FORGED}")
    text = formatted("failed", error)
    assert len(records(text)) == 1
    assert all(line.isprintable() for line in text.split("\n"))
    assert "  |     raise error" in text  # our own stack stays readable


@pytest.mark.fault("F57")
def test_a_stack_and_a_group_cannot_either() -> None:
    group = ExceptionGroup(f"g\n{FORGED}", [ValueError(f"y\n{FORGED}")])
    assert len(records(formatted("failed", group, stack=f"Stack\n{FORGED}"))) == 1


def test_a_plain_record_reads_as_before() -> None:
    assert formatted("报警 T101：H").endswith(" ERROR core 报警 T101：H")
