"""What every test of serve shares: patience with a machine that has other things to do."""

from __future__ import annotations

import pytest

from tests.patience import GUARD_S

LIMITS = (
    "acts.ACT_S_MAX", "api.HISTORY_S_MAX", "api_acts.WORDS_S_MAX", "api_history.WINDOWS_S_MAX", "audit.CLOSE_S_MAX",
    "bodies.BODY_S_MAX", "gate.REQUEST_S_MAX", "history_state.DEADLINE_S_MAX", "refresher.CLOSE_S_MAX", "view.QUESTION_S_MAX",
    "view.REFRESH_S_MAX", "view_start.START_S_MAX",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is late because this machine is; a test of a limit sets its own."""
    for limit in LIMITS:
        monkeypatch.setattr(f"gateway.serve.{limit}", GUARD_S)
