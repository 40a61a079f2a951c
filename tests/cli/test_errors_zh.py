"""Every error that ends a command has a Chinese sentence, and each sentence can be filled."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

import alerting.delivery
import edge
import gateway.core
import gateway.serve
from cli.errors_zh import SENTENCES, sentence
from cli.running import explain
from gateway.core import DataFolderBusyError, LedgerOlderError
from simulators import SimulatorError

ROOTS = (gateway.core.CoreError, edge.EdgeError, alerting.delivery.DeliveryError, SimulatorError, gateway.serve.ServeError)


def test_every_room_has_a_sentence_for_its_root() -> None:
    assert {root.__name__ for root in ROOTS} <= set(SENTENCES)


def test_every_sentence_belongs_to_an_error() -> None:
    def below(kind: type) -> set[str]:
        return {kind.__name__}.union(*map(below, kind.__subclasses__()))

    known = set[str]().union(*map(below, ROOTS))
    assert set(SENTENCES) <= known


@pytest.mark.parametrize(
    "error",
    [
        DataFolderBusyError(Path("/d"), "core with process id 7"),
        LedgerOlderError(Path("/d/ledger.sqlite3"), 5, 9),
        LedgerOlderError(Path("/d/ledger.sqlite3"), 5, 9, sealed=True),
        gateway.core.LedgerFormatError(Path("/d/l"), "a database of another program"),
        gateway.core.LedgerVersionError(Path("/d/l"), "1", 2),
        gateway.core.LedgerVersionError(Path("/d/l"), "3", 2),
        gateway.core.ActsSocketError(Path("/d/acts.sock"), "no answer"),
        edge.DataFolderInUseError(Path("/d"), "12"),
        edge.DataFolderError(Path("/d"), PermissionError(13, "Permission denied")),
        edge.SpoolFormatError("0001.spool", 9),
        alerting.delivery.SecretRefusedError("CITY", "is not base64"),
    ],
)
def test_fields_are_put_in(error: Exception) -> None:
    told = sentence(error)
    assert any("\u4e00" <= char <= "\u9fff" for char in told)
    for name in [field for _, field, _, _ in string.Formatter().parse(SENTENCES[type(error).__name__]) if field]:
        assert str(getattr(error, name, error)) in told


def test_an_error_nobody_translated_keeps_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    assert explain(ValueError("as it is")) == "as it is"


def test_what_an_error_quotes_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    assert explain(SimulatorError("a\x1b[2Jb\u2028c")) == "a\\x1b[2Jb\\u2028c"
