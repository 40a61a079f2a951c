"""What other packages may use is a decision, not an accident."""

from __future__ import annotations

import gateway.care


def test_the_public_face_is_this_and_nothing_else() -> None:
    errors = {
        "CareError", "DamagedBackupError", "InUseError", "NewerDataError", "NotABackupError", "NothingToBackUpError",
        "SourceChangedError", "TargetError", "TooOldError",
    }  # fmt: skip
    assert set(gateway.care.__all__) == errors | {
        "RATE_BYTES_PER_S", "Disk", "Listing", "Pace", "Part", "Report", "Restored", "Upgraded", "backup", "backup_into_file",
        "plan", "refuse_unreadable", "restore", "upgrade", "verify",
    }  # fmt: skip
    assert all(issubclass(getattr(gateway.care, name), gateway.care.CareError) for name in errors)
