"""What comes from outside cannot forge a line of the log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from cli.running import LOG_FORMAT, OneLineFormatter
from gateway.core.facts import Suspicion
from gateway.core.sessions import Sessions
from tests.gateway.field import site
from wire import PAYLOAD_LIMITS

NASTY = [
    pytest.param("\r\n2026-01-01 00:00:00 CRITICAL core forged", id="CRLF"),
    pytest.param("\x1b[2J\x1b[31mred", id="ANSI"),
    pytest.param("a\u2028b\u2029c\x85d", id="Unicode line separators"),
    pytest.param("a\x00b\x0bc\x0cd\x1ce", id="null and other controls"),
    pytest.param("\u202egnp.exe", id="right-to-left override"),
]


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    log = logging.getLogger("outside")
    log.addHandler(handler)
    log.propagate = False
    yield text
    log.removeHandler(handler)


def written(text: io.StringIO) -> str:
    """Everything that was logged, without the newline that ends it."""
    out = text.getvalue()
    assert out.endswith("\n")
    return out[:-1]


@pytest.mark.fault("F57")
@pytest.mark.parametrize("nasty", NASTY)
def test_one_record_is_one_line(lines: io.StringIO, nasty: str) -> None:
    logging.getLogger("outside").warning("topic %s refused", nasty)
    line = written(lines)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert line.endswith(" refused")


@pytest.mark.fault("F57")
@pytest.mark.parametrize("nasty", NASTY)
def test_an_error_that_quotes_outside_text_forges_no_record_either(lines: io.StringIO, nasty: str) -> None:
    try:
        raise ValueError(nasty)
    except ValueError:
        logging.getLogger("outside").exception("reading %s failed", nasty)
    first, *stack = written(lines).split("\n")
    assert first.isprintable()
    assert "ERROR outside" in first
    assert stack, "the stack is there"
    for line in stack:
        assert line.startswith("  "), "a line of a stack cannot be taken for a record"
        assert line.isprintable()


def test_text_of_any_language_stays_readable(lines: io.StringIO) -> None:
    logging.getLogger("outside").warning("液氯储罐 T-101 压力高 °C µ")
    assert "液氯储罐 T-101 压力高 °C µ" in written(lines)


@pytest.mark.fault("F57")
@pytest.mark.fault("F60")
def test_a_topic_with_control_characters_reaches_no_session() -> None:
    sessions = Sessions(site(), PAYLOAD_LIMITS, 0)
    assert sessions.message("spBv1.0/PARK1/NBIRTH/E1\r\nforged", b"", 0) == []
    assert sessions.refused == 1


@pytest.mark.fault("F60")
def test_a_node_that_is_no_edge_of_the_site_is_told_once_and_gets_no_session() -> None:
    sessions = Sessions(site(), PAYLOAD_LIMITS, 0)
    told = [sessions.message(f"spBv1.0/PARK1/NBIRTH/X{at}", b"", at) for at in range(1_000)]
    assert [len(facts) for facts in told] == [1] + [0] * 999
    ((_, fact),) = told[0]
    assert isinstance(fact, Suspicion)
    assert set(sessions.nodes) == {"E1", "E2"}
    assert sessions.refused == 1_000
