"""Every error that ends a command has a Chinese sentence, and each sentence can be filled."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

import alerting.delivery
import edge
import gateway.core
import gateway.serve
from cli.errors_zh import CAUSES, SENTENCES, sentence
from cli.running import explain
from gateway.core import DataFolderBusyError, LedgerOlderError
from simulators import SimulatorError

WITH_CAUSE = ("LedgerFormatError", "ActsSocketError", "SecretRefusedError")
ROOT = Path(__file__).parents[2]
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
        value = str(getattr(error, name, error))
        assert value in told or any(known.fullmatch(value) for known, _ in CAUSES)


OURS = [  # every cause that our own code gives to these errors
    *(gateway.core.LedgerFormatError(Path("/d/l"), cause) for cause in (
        "a database of another program", "not a readable SQLite file (file is not a database)", "belongs to site A, not B",
        "there is no such file", "not a readable ledger (disk I/O error)", "it names no schema version")),
    *(gateway.core.ActsSocketError(Path("/d/a"), cause) for cause in (
        "cannot be opened (EADDRINUSE)", "no answer (TimeoutError)", "no answer (FileNotFoundError)",
        "no answer (ConnectionRefusedError)",
        "an answer longer than 65536 bytes",
        "core closed the connection without an answer", "an answer that cannot be read (line 1)")),
    *(alerting.delivery.SecretRefusedError("CITY", reason) for reason in (
        "file holds 9 secrets, not 1 to 4", "does not begin with whsec_", "is not base64", "has 7 bytes")),
    DataFolderBusyError(Path("/d"), "core with process id 7"), DataFolderBusyError(Path("/d"), "another core"),
    edge.SpoolFormatError("0001.spool", 9),
]  # fmt: skip


@pytest.mark.parametrize("error", OURS, ids=str)
def test_no_sentence_is_half_english_and_none_drops_a_figure(error: Exception) -> None:
    told, english = sentence(error), str(error)
    assert set(re.findall(r"\d+", english)) <= set(re.findall(r"\d+", told)), told
    assert "Error" not in told
    for phrase in re.findall(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", told):
        assert phrase in "file is not a database", f"only a library's own words stay: {told}"


def test_every_cause_in_our_code_is_known_here() -> None:
    """Read from the code, so that a new cause is not forgotten."""
    bare = []
    for path in (*(ROOT / "gateway" / "core").glob("*.py"), *(ROOT / "alerting" / "delivery").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in WITH_CAUSE:
                cause = node.args[1]
                parts = cause.values if isinstance(cause, ast.JoinedStr) else [cause]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in parts)
                if not any(known.fullmatch(text) for known, _ in CAUSES):
                    bare.append(f"{path.name}: {text}")
    assert not bare


def test_an_error_nobody_translated_keeps_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "zh")
    assert explain(ValueError("as it is")) == "as it is"


def test_what_an_error_quotes_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAZARDGATE_LANG", "en")
    assert explain(SimulatorError("a\x1b[2Jb\u2028c")) == "a\\x1b[2Jb\\u2028c"
