"""Care of a data folder: backup beside a running core, restore, upgrade. Each may be ended at any step and goes on."""

from gateway.care.disk import RATE_BYTES_PER_S, Disk, Pace
from gateway.care.errors import (
    CareError,
    DamagedBackupError,
    InUseError,
    NewerDataError,
    NotABackupError,
    NothingToBackUpError,
    SourceChangedError,
    TargetError,
    TooOldError,
)
from gateway.care.listing import Listing
from gateway.care.restoring import Restored, restore, verify
from gateway.care.taking import Report, backup
from gateway.care.tar import backup_into_file
from gateway.care.upgrading import Upgraded, plan, upgrade
from gateway.care.versions import Part, refuse_unreadable

__all__ = [
    "RATE_BYTES_PER_S",
    "CareError",
    "DamagedBackupError",
    "Disk",
    "InUseError",
    "Listing",
    "NewerDataError",
    "NotABackupError",
    "NothingToBackUpError",
    "Pace",
    "Part",
    "Report",
    "Restored",
    "SourceChangedError",
    "TargetError",
    "TooOldError",
    "Upgraded",
    "backup",
    "backup_into_file",
    "plan",
    "refuse_unreadable",
    "restore",
    "upgrade",
    "verify",
]
