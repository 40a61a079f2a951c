"""What the births of a session declared, for looking up the aliases and names of its samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wire import DataColumns, Metric, takes_double

ALIAS_TABLE_MAX: Final = 1 << 20  # larger aliases (foreign nodes) go through a dictionary
UNKNOWN_ALIAS: Final = -1
IGNORED_ALIAS: Final = -2  # declared in a birth, but no tag of this site


class Declared:
    """What the births declared: tag and data type of every alias and name. Small aliases stand in one array."""

    def __init__(self) -> None:
        self._tag = np.empty(0, np.int32)
        self._datatype = np.empty(0, np.uint8)
        self._double = np.empty(0, np.int32)  # the tag where a double of this alias is taken as it is, else UNKNOWN_ALIAS
        self._large: dict[int, tuple[int, int]] = {}
        self._named: dict[str, int] = {}

    def declare(self, metric: Metric, tag: int) -> None:
        """Take one metric of a birth; `tag` is its index or IGNORED_ALIAS."""
        datatype = 0 if metric.datatype is None else int(metric.datatype)
        if metric.name is not None:
            self._named[metric.name] = datatype
        alias = metric.alias
        if alias is None:
            return
        if alias >= ALIAS_TABLE_MAX:
            self._large[alias] = (tag, datatype)
            return
        if alias >= len(self._tag):
            size = max(64, 2 * alias)
            grown_tag, grown_datatype = np.full(size, UNKNOWN_ALIAS, np.int32), np.zeros(size, np.uint8)
            grown_double = np.full(size, UNKNOWN_ALIAS, np.int32)
            grown_tag[: len(self._tag)], grown_datatype[: len(self._tag)] = self._tag, self._datatype
            grown_double[: len(self._tag)] = self._double
            self._tag, self._datatype, self._double = grown_tag, grown_datatype, grown_double
        self._tag[alias], self._datatype[alias] = tag, datatype
        self._double[alias] = tag if takes_double(datatype) else UNKNOWN_ALIAS

    def tags_of_doubles(self, alias: NDArray[np.int64]) -> NDArray[np.int32] | None:
        """Return the tag index of every row; None unless each is a tag of this node and takes doubles.

        Args:
            alias: int64[n], 0 or more.
        """
        try:
            tag = self._double.take(alias)
        except IndexError:
            return None
        return tag if len(tag) and np.minimum.reduce(tag) >= 0 else None

    def look_up(
        self, columns: DataColumns, tag_index: Mapping[str, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return tag index and declared data type of every row: by alias where it has one, else by name."""
        alias = columns.alias
        if len(alias) and int(alias.min()) >= 0 and int(alias.max()) < len(self._tag):
            return self._tag[alias], self._datatype[alias]  # as every frame of a node of ours
        tag = np.full(len(alias), UNKNOWN_ALIAS, np.int32)
        datatype = np.zeros(len(alias), np.uint8)
        small = (alias >= 0) & (alias < len(self._tag))
        tag[small], datatype[small] = self._tag[alias[small]], self._datatype[alias[small]]
        for row in np.flatnonzero(~small).tolist():
            name = columns.names[row]
            if alias[row] >= 0:
                tag[row], datatype[row] = self._large.get(int(alias[row]), (UNKNOWN_ALIAS, 0))
            elif name is not None:
                tag[row], datatype[row] = tag_index.get(name, IGNORED_ALIAS), self._named.get(name, 0)
        return tag, datatype
