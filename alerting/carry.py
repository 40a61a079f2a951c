"""The state of an evaluator in a dump, and which of its rows live on under the limits that hold when it is read.

A dump says under which limits it was made. A row whose limit means something else now is not the same limit any
more, even under the same name: what stands on it is not for the new limit to return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alerting.evaluator import ROW_STATE, TAG_STATE, Evaluator
from alerting.lastsamples import Columns
from alerting.limits import LimitTable
from alerting.phases import CODE_UNHEARD, NORMAL

_MEANING = ("side", "setpoint", "deadband")


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """Where the tags and rows of a dump are now.

    Attributes:
        tag: int64[old tags], the tag's place in the new table, -1 when it is gone.
        row: int64[old limits + old tags], likewise; fault rows follow the limits.
        same: bool[old limits + old tags], the row is there and means what it meant.
        same_unit: bool[old tags], the tag is there and its values mean what they meant.
    """

    tag: NDArray[np.int64]
    row: NDArray[np.int64]
    same: NDArray[np.bool_]
    same_unit: NDArray[np.bool_]


def written(evaluator: Evaluator) -> tuple[dict[str, Any], Columns]:
    """Return all state and the limits it was reached under: a part of a dump's header, and columns."""
    limits, (tags, rows) = evaluator.limits, evaluator.columns()
    header = {"site": limits.site, "tags": list(limits.tag_id), "units": list(limits.unit),
              "limits": list(limits.limit)}
    # Few rows are ever out of the ordinary; only they are written.
    used = np.flatnonzero((rows["phase"] != 0) | (rows["step_count"] != 0))
    columns: Columns = {"row_tag": limits.row_tag, "row": used}
    columns |= {f"limit.{name}": getattr(limits, name) for name in _MEANING}
    columns |= {f"tag.{name}": column for name, column in tags.items()}
    columns |= {f"row.{name}": column[used] for name, column in rows.items()}
    return header, columns


def carry(limits: LimitTable, header: dict[str, Any], columns: Columns) -> Carried:
    """Find the tags and rows of a dump, by name, in the limits that hold now.

    Raises:
        KeyError, IndexError, ValueError: the dump contradicts itself.
    """
    place = {tag: index for index, tag in enumerate(limits.tag_id)}
    tag = np.array([place.get(name, -1) for name in header["tags"]], np.int64)
    units = [index >= 0 and limits.unit[index] == unit
             for index, unit in zip(tag.tolist(), header["units"], strict=True)]
    same_unit = np.array(units, np.bool_)
    owner = columns["row_tag"]
    named = {key: row for row, key in enumerate(zip(limits.row_tag.tolist(), limits.limit, strict=True))}
    found = [named.get(key, -1) for key in zip(tag[owner].tolist(), header["limits"], strict=True)]
    row = np.array(found, np.int64)
    same = (row >= 0) & same_unit[owner]
    for name in _MEANING:
        same[same] &= getattr(limits, name)[row[same]] == columns[f"limit.{name}"][same]
    # A tag that is only planned now raises no fault, and returns none.
    same_fault = tag >= 0
    same_fault[same_fault] &= limits.in_service[tag[same_fault]]
    faults = np.where(tag >= 0, limits.rows + tag, -1)
    return Carried(tag, np.concatenate([row, faults]), np.concatenate([same, same_fault]), same_unit)


def read_into(evaluator: Evaluator, header: dict[str, Any], columns: Columns) -> Carried:
    """Give a new evaluator the state that `written` returned, as far as its limits are still the same.

    The row of a limit that changed starts normal, whatever ran on it; a tag whose unit changed has no value yet.
    """
    carried = carry(evaluator.limits, header, columns)
    tags, rows = evaluator.columns()
    kept = carried.tag >= 0
    columns = {"tag.excused_ms": np.zeros(len(kept), np.int64), **columns}  # dumps from before there were excuses
    for name in TAG_STATE:
        tags[name][carried.tag[kept]] = columns[f"tag.{name}"][kept]
    renamed = carried.tag[kept & ~carried.same_unit]
    tags["value"][renamed], tags["code"][renamed], tags["known"][renamed] = np.nan, CODE_UNHEARD, False
    used = columns["row"]
    into, same = carried.row[used], carried.same[used]
    for name in ROW_STATE:
        rows[name][into[into >= 0]] = columns[f"row.{name}"][into >= 0]
    rows["phase"][into[(into >= 0) & ~same]] = NORMAL
    evaluator.load(tags, rows)
    return carried
