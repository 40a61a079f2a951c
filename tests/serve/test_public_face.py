"""What other packages may use is a decision, not an accident."""

from __future__ import annotations

import gateway.serve


def test_the_public_face_is_this_and_nothing_else() -> None:
    assert set(gateway.serve.__all__) == {
        "DAYS_MAX", "SERVE_FOLDER", "WHERE_NAME", "HistoryReader", "Role", "ServeError", "ServeSettings", "Token", "TokenStore",
        "give_large_back", "openapi_document", "run_serve",
    }  # fmt: skip
    assert all(hasattr(gateway.serve, name) for name in gateway.serve.__all__)
