"""The points of an edge as columns: what numbering, spool and session need to know of them, and no more.

Points stand in file order: devices as the edge's file lists them, each with its points. A point's position here is
the one a `Scan` carries, and its Sparkplug alias is that position plus one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wire import Native

ALIAS_OF_FIRST_POINT: Final = 1


@dataclass(frozen=True, slots=True)
class Point:
    """One point: engineering value = float64(native) * scale + offset, in the tag's unit."""

    tag: str
    native: Native
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class PointTable:
    """All points of one edge.

    Attributes:
        devices: Sparkplug device ids, in file order.
        points: every point, ordered by device.
        device_of: int32[points], position of each point's device in `devices`.
    """

    devices: tuple[str, ...]
    points: tuple[Point, ...]
    device_of: NDArray[np.int32]

    @staticmethod
    def of(devices: Iterable[tuple[str, Iterable[Point]]]) -> PointTable:
        """Build the table from each device's id and points."""
        names: list[str] = []
        points: list[Point] = []
        device_of: list[int] = []
        for name, owned in devices:
            for point in owned:
                points.append(point)
                device_of.append(len(names))
            names.append(name)
        return PointTable(tuple(names), tuple(points), np.array(device_of, np.int32))

    def as_json(self) -> dict[str, Any]:
        """Return the table as JSON members; `from_json` reads them back."""
        return {
            "devices": list(self.devices),
            "points": [
                [int(device), point.tag, point.native.name, point.scale, point.offset]
                for device, point in zip(self.device_of.tolist(), self.points, strict=True)
            ],
        }

    @staticmethod
    def from_json(members: Mapping[str, Any]) -> PointTable:
        """Read back what `as_json` wrote."""
        rows = members["points"]
        return PointTable(
            tuple(members["devices"]),
            tuple(Point(tag, Native[native], scale, offset) for _, tag, native, scale, offset in rows),
            np.array([row[0] for row in rows], np.int32),
        )
