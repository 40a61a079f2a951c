"""The command line as it is, but core's loop stands still once a file says so. For tests alone; nothing ships it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cli.commands import main
from gateway.core.loop import CoreLoop

STALL_VARIABLE = "HAZARDGATE_TEST_STALL"
STALL_S = 120.0


def _stand_still_when_told(mark: Path) -> None:
    cycle = CoreLoop.cycle

    def told(loop: CoreLoop) -> None:
        if mark.exists():
            mark.unlink()
            time.sleep(STALL_S)  # the fault itself: one call that does not come back
        cycle(loop)

    CoreLoop.cycle = told  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    _stand_still_when_told(Path(os.environ[STALL_VARIABLE]))
    main()
