"""What the machine knows of one node."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alerting import HistoryFork
from gateway.core.books import NodeBook


@dataclass(slots=True)
class HistoryRun:
    """A fork of one node's rows that follows the frames in stream order.

    Attributes:
        number: the last frame it has run.
        seen: the last frame of the live stream that the present had evaluated when the run was last fed from it.
    """

    fork: HistoryFork
    stream: int
    number: int
    seen: int | None = None


@dataclass(slots=True)
class NodeState:
    """What the machine knows of one node."""

    tags: NDArray[np.int32]
    book: NodeBook = field(default_factory=NodeBook)
    online: bool = False
    unmarked_stream: int = 0
    unmarked_count: int = 0
    history: HistoryRun | None = None
    restored: bool = False  # the gateway was restored from a backup since this node's last birth
    commands_told: int = 0  # how many refused commands of its present run were told of
