"""Where a tag's rows lie in the ledger: under which node and device its frames were logged.

What is sealed does not need it. Of what is not, the site says where a tag is now, and the revisions of the configuration
that the log holds say where it was before: rows do not move with a tag.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import OrderedDict
from typing import Any, Final

from config import SiteConfig
from gateway.core.revision import REVISION_BYTES_MAX
from gateway.serve.view_ledger import LedgerFile

log = logging.getLogger(__name__)

PLACES_ROWS_MAX: Final = 50_000  # rows of the log in which the place of a tag that the site has no more is looked for
REVISIONS_MAX: Final = 4  # revisions looked at, the newest; more than that since the last seal is no working plant

Place = tuple[str, str]
"""Node and device."""


class Places:
    """Knows where tags are and were. Any thread may ask."""

    def __init__(self, site: SiteConfig) -> None:
        self._now = {point.tag: (edge.id, device.id) for edge in site.edges for device in edge.devices for point in device.points}
        self._revisions: OrderedDict[tuple[str, int], dict[str, Place]] = OrderedDict()

    def of(self, file: LedgerFile, ledger_id: str, tag: str, after: int) -> list[Place]:
        """Return where rows of a tag may lie that were logged after a position."""
        now = self._now.get(tag)
        if now is None:
            return _logged_lately(file, after) or [("", "")]
        before = [revision.get(tag) for revision in self._held_after(file, ledger_id, after)]
        return list(dict.fromkeys([now, *(place for place in before if place is not None)]))

    def _held_after(self, file: LedgerFile, ledger_id: str, after: int) -> list[dict[str, Place]]:
        """Return the places of all revisions that held after a position; none where there was no change since."""
        sql = "SELECT pos FROM log WHERE kind = 'C' AND pos {} ? ORDER BY pos DESC LIMIT ?"
        since = file.rows(sql.format(">"), (after, REVISIONS_MAX))
        if not since:
            return []
        held = file.rows(sql.format("<="), (after, 1))
        return [self._revision(file, ledger_id, pos) for (pos,) in (*since, *held)]

    def _revision(self, file: LedgerFile, ledger_id: str, pos: int) -> dict[str, Place]:
        key = ledger_id, pos
        found = self._revisions.get(key)
        if found is None:
            rows = file.rows("SELECT body FROM log WHERE pos = ? AND kind = 'C'", (pos,))
            found = _places_of(rows[0][0]) if rows else {}
            self._revisions[key] = found
            while len(self._revisions) > REVISIONS_MAX + 1:
                self._revisions.popitem(last=False)
        return found


def _places_of(body: bytes) -> dict[str, Place]:
    """Return the places of a revision, whichever version wrote it; none of one that cannot be read."""
    try:
        loaded: Any = json.loads(zlib.decompressobj().decompress(body, REVISION_BYTES_MAX))
        return {
            str(point["tag"]): (str(edge["id"]), str(device["id"]))
            for edge in loaded["edges"] for device in edge["devices"] for point in device["points"]
        }  # fmt: skip
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        log.error("history: a revision of the configuration in the ledger cannot be read (%s)", error)
        return {}


def _logged_lately(file: LedgerFile, after: int) -> list[Place]:
    """Return whose frames were logged last, after a position; blocks speak for their node's devices."""
    rows = file.rows(
        "SELECT DISTINCT node, device FROM (SELECT node, device FROM log WHERE pos > ? AND kind IN ('F', 'B', 'H')"
        " ORDER BY pos DESC LIMIT ?)", (after, PLACES_ROWS_MAX),
    )  # fmt: skip
    devices = [(str(node), str(device)) for node, device in rows if device]
    return sorted(devices + [(str(node), "") for node, device in rows if not device and node not in {each for each, _ in devices}])
