"""The numbers both ways of applying the rules share."""

from __future__ import annotations

from typing import Final

import numpy as np

from wire import Quality, Reason, quality_code

# Phases of a row: normal, on-delay running, active, off-delay running.
NORMAL: Final = 0
ENTERING: Final = 1
ACTIVE: Final = 2
LEAVING: Final = 3

GOOD_FROM: Final = int(Quality.GOOD)
UNCERTAIN_FROM: Final = int(Quality.UNCERTAIN)
CODE_STALE: Final = quality_code(Quality.BAD, Reason.STALE)
CODE_UNHEARD: Final = quality_code(Quality.BAD, Reason.UNKNOWN)
CODE_NOT_A_NUMBER: Final = quality_code(Quality.BAD, Reason.NOT_A_NUMBER)
VALUE_MAX: Final = float(np.finfo(np.float64).max)
