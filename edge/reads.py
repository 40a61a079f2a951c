"""Which reads of one device are sound, which are suspect, and what to ask next, as pure decisions.

A refused block is halved until the refused address stands alone; the rest is read on. Whatever fails is
asked again, but ever more rarely, so that it takes no time from what works. All times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.modbus import ReadRequest, request_for
from edge.plan import Block, halves
from wire import Quality, Reason, quality_code

REPROBE_S: Final = 60.0
"""How often an isolated address, and the whole block it came from, is asked again."""
RETRY_S_MAX: Final = 30.0
"""Longest pause between two questions to a unit or block that gives no answer."""
SPLITS_PER_CYCLE_MAX: Final = 32
"""Halvings in one poll. A device that refuses everything is taken apart over several polls."""

BAD_COMM: Final = quality_code(Quality.BAD, Reason.COMM)
BAD_CONFIG: Final = quality_code(Quality.BAD, Reason.CONFIG)
BAD_BUSY: Final = quality_code(Quality.BAD, Reason.BUSY)
BAD_OFFLINE: Final = quality_code(Quality.BAD, Reason.OFFLINE)
BAD_DEVICE: Final = quality_code(Quality.BAD, Reason.DEVICE_FAULT)
BAD_UNKNOWN: Final = quality_code(Quality.BAD, Reason.UNKNOWN)


class Refused(Enum):
    """What a Modbus exception asks of us."""

    CONFIG = "the register map is wrong: isolate the address, ask rarely"
    BUSY = "ask again a little later"
    OFFLINE = "the unit behind the gateway is away: probe it"
    FAULT = "the device has a fault: keep asking at the normal rate"


_REFUSED_BY_CODE: Final = {
    1: (Refused.CONFIG, BAD_CONFIG),
    2: (Refused.CONFIG, BAD_CONFIG),
    3: (Refused.CONFIG, BAD_CONFIG),
    4: (Refused.FAULT, BAD_DEVICE),
    5: (Refused.BUSY, BAD_BUSY),
    6: (Refused.BUSY, BAD_BUSY),
    7: (Refused.FAULT, BAD_DEVICE),
    8: (Refused.FAULT, BAD_DEVICE),
    10: (Refused.OFFLINE, BAD_OFFLINE),
    11: (Refused.OFFLINE, BAD_OFFLINE),
}


def judge(exception_code: int) -> tuple[Refused, int]:
    """Return what an exception code (0…255) asks of us and the quality code its points get."""
    return _REFUSED_BY_CODE.get(exception_code, (Refused.FAULT, BAD_UNKNOWN))


class Part:
    """One read and its record: a planned block, or a piece of one that had to be split."""

    __slots__ = (
        "asked_in", "block", "failed_code", "failures", "not_before", "origin", "request", "retired", "rows",
    )  # fmt: skip

    def __init__(self, unit: int, block: Block, origin: int) -> None:
        self.block = block
        self.origin = origin
        self.request: ReadRequest = request_for(unit, block)
        self.rows: NDArray[np.intp] = np.array(block.rows, dtype=np.intp)
        self.failed_code = 0
        """Quality code of its points while it fails; 0 while it is sound."""
        self.failures = 0
        self.not_before = float("-inf")
        self.asked_in = 0
        """Number of the poll in which it was last asked."""
        self.retired = False
        """A piece that was replaced by its own halves, or by the whole it came from."""


class DeviceReads:
    """The reads of one device, and whether its unit answers at all."""

    def __init__(self, unit: int, blocks: Sequence[Block], *, period_s: float, shared: bool) -> None:
        """`shared`: other units are on the same bus, so a silent one must not be waited for at full rate."""
        self._unit, self._period_s, self._shared = unit, period_s, shared
        self._wholes = [Part(unit, block, at) for at, block in enumerate(blocks)]
        self._parts: list[list[Part]] = [[whole] for whole in self._wholes]
        self._splits_left = SPLITS_PER_CYCLE_MAX
        self._probes = 0
        self.silent_cycles = 0
        self.silent_code = BAD_COMM
        self.contacted = False
        """Whether the unit has given an answer since the start or since it fell silent."""
        self.probe_from = float("-inf")
        self._sound: tuple[Part, ...] = ()
        self._suspect: tuple[Part, ...] = ()
        self._sort()

    @property
    def sound(self) -> tuple[Part, ...]:
        """The parts that answered when last asked (or were never asked), in address order."""
        return self._sound

    @property
    def suspect(self) -> tuple[Part, ...]:
        """The parts that failed when last asked."""
        return self._suspect

    def begin_cycle(self) -> None:
        self._splits_left = SPLITS_PER_CYCLE_MAX

    def due(self, now: float) -> list[Part]:
        """Return what to ask after the sound parts: wholes that had to be split first, then suspects."""
        wholes = [
            whole
            for whole in self._wholes
            if self.is_split_whole(whole) and whole.not_before <= now
        ]
        return wholes + [part for part in self._suspect if part.not_before <= now]

    def is_split_whole(self, part: Part) -> bool:
        """Tell whether `part` is a planned block that is read in pieces now."""
        return part is self._wholes[part.origin] and self._parts[part.origin][0] is not part

    def probe(self) -> Part:
        """Return the one part to ask of a unit that does not answer; another one each time."""
        parts = self._sound + self._suspect
        part = parts[self._probes % len(parts)]
        self._probes += 1
        return part

    def answered(self, part: Part) -> None:
        """`part` gave content."""
        self._unit_answers()
        if self.is_split_whole(part):
            for piece in self._parts[part.origin]:
                piece.retired = True
            self._parts[part.origin] = [part]
            part.failed_code = part.failures = 0
            self._sort()
        elif part.failed_code:
            part.failed_code = part.failures = 0
            self._sort()

    def refused(self, part: Part, exception_code: int, now: float) -> tuple[Part, ...]:
        """`part` was refused; return the halves to ask at once, if it is to be split."""
        refused, code = judge(exception_code)
        if refused is Refused.OFFLINE:
            self._unit_silent(code, now)
            return ()
        self._unit_answers()
        if self.is_split_whole(part):
            part.not_before = now + REPROBE_S
            return ()
        if refused is Refused.CONFIG and len(part.block.atoms) > 1 and self._splits_left > 0:
            return self._split(part, code, now)
        self._fail(part, code)
        if refused is Refused.CONFIG and len(part.block.atoms) == 1:
            part.not_before = now + REPROBE_S
        elif refused is Refused.BUSY:
            part.not_before = now + self._growing_s(part.failures)
        else:
            part.not_before = now
        return ()

    def unanswered(self, part: Part, now: float) -> None:
        """`part` got no answer although the connection stands."""
        if self.is_split_whole(part):
            part.not_before = now + REPROBE_S
            return
        self._fail(part, BAD_COMM)
        part.not_before = now + (self._growing_s(part.failures) if self._shared else 0.0)

    def silent(self, now: float) -> None:
        """A whole cycle, or a probe, brought no answer."""
        self._unit_silent(BAD_COMM, now)

    def _unit_silent(self, code: int, now: float) -> None:
        self.contacted = False
        self.silent_code = code
        self.silent_cycles += 1
        self.probe_from = now + self._growing_s(self.silent_cycles) if self._shared else now

    def _unit_answers(self) -> None:
        if not self.contacted:
            for part in self._suspect:
                if part.failed_code == BAD_COMM:
                    part.not_before = float("-inf")
        self.contacted = True
        self.silent_cycles = 0

    def _growing_s(self, failures: int) -> float:
        """1, 2, 4 … periods, at most 30 s; a little less, so that the poll at that moment counts as due."""
        return min(RETRY_S_MAX, self._period_s * 2.0 ** min(failures - 1, 20)) - self._period_s / 2

    def _fail(self, part: Part, code: int) -> None:
        part.failures += 1
        newly = part.failed_code == 0
        part.failed_code = code
        if newly:
            self._sort()

    def _split(self, part: Part, code: int, now: float) -> tuple[Part, ...]:
        self._splits_left -= 1
        pieces = tuple(Part(self._unit, half, part.origin) for half in halves(part.block))
        for piece in pieces:
            piece.failed_code = code
        part.retired = part is not self._wholes[part.origin]
        parts = self._parts[part.origin]
        at = parts.index(part)
        parts[at : at + 1] = pieces
        self._wholes[part.origin].not_before = now + REPROBE_S
        self._sort()
        return pieces

    def _sort(self) -> None:
        parts = [part for group in self._parts for part in group]
        self._sound = tuple(part for part in parts if not part.failed_code)
        self._suspect = tuple(part for part in parts if part.failed_code)
