"""What a reader of the view may be told.

    ViewError
    ├── HistoryTooLargeError   the question asks for more than one answer may hold
    ├── UnknownTagError        the site has no such tag
    ├── LedgerAwayError        there is no ledger to read just now
    ├── OutOfTimeError         the ledger is there, but reading took longer than it may
    └── BadCursorError         `before` is none of ours
"""

from __future__ import annotations

from typing import Final

AWAY: Final = {
    "missing": (
        "core has made no ledger in serve's data folder; start core on this folder, or give serve core's own with --data",
        "查询服务的数据目录里还没有核心建立的账本；请在该目录上启动核心，或用 --data 给出核心的数据目录",
    ),
    "unreadable": (
        "the ledger is there but cannot be read just now; try again, and see /api/v1/health for the cause",
        "账本存在，但暂时读不出；请稍后再试，原因见 /api/v1/health",
    ),
    "foreign": (
        "what stands in the ledger's place is a file of another program; give serve core's data folder with --data",
        "账本的位置上是别的程序的文件；请用 --data 给出核心的数据目录",
    ),
    "other_schema": (
        "the ledger has schema version {found}, this program reads {wanted}; let core and serve be of one version, "
        "and bring an older ledger to it with `hazardgate upgrade`",
        "账本的格式版本为 {found}，本程序只读 {wanted}；核心与查询服务须为同一版本，"
        "较旧的账本请用 `hazardgate upgrade` 升级",
    ),
    "other_site": (
        "the ledger belongs to site {found}, not {wanted}; start serve with the site file and the data folder that core has",
        "账本属于站点 {found}，而不是 {wanted}；请用与核心相同的站点文件和数据目录启动查询服务",
    ),
}
"""For each `models.LedgerState` that is away, what is wrong and what to do, in English and Chinese. No path stands here:
every client may read it."""


NEWER: Final = (
    "the ledger has schema version {found}, this program reads {wanted}: a newer program wrote it; let core and serve be of "
    "that version",
    "账本的格式版本为 {found}，本程序只读 {wanted}：由更新的程序写入；核心与查询服务须为那个版本",
)
"""Of `other_schema`, where there is no way from there to here."""


def in_days(span_ms: int) -> str:
    """Return a span in days, with one digit where it is no whole number."""
    days = span_ms / 86_400_000
    return f"{days:.0f}" if days == round(days) else f"{days:.1f}"


class ViewError(Exception):
    """Base: expected, and the caller's to tell on."""


class UnknownTagError(ViewError):
    """The site has no tag of this id."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        super().__init__(f"{tag!r} is not a tag of this site; see the list of tags")


class HistoryTooLargeError(ViewError):
    """The range is longer than one answer may cover; `fits_ms` milliseconds would do."""

    def __init__(self, asked_ms: int, fits_ms: int) -> None:
        self.asked_ms, self.fits_ms = asked_ms, fits_ms
        super().__init__(f"a range of {in_days(asked_ms)} days; ask for at most {in_days(fits_ms)} days at once")


class LedgerAwayError(ViewError):
    """The ledger cannot be read just now; `state` is a `models.LedgerState`, `told` and `told_zh` are fit for clients."""

    def __init__(self, state: str, detail: str, *, found: str = "", wanted: str = "") -> None:
        self.state, self.detail = state, detail
        newer = state == "other_schema" and found.isdecimal() and int(found) > int(wanted)
        self.told, self.told_zh = (words.format(found=found, wanted=wanted) for words in (NEWER if newer else AWAY[state]))
        super().__init__(f"{self.told} ({state}: {detail})")


class OutOfTimeError(ViewError):
    """A read took longer than it was given, or no connection came free in time."""

    def __init__(self) -> None:
        super().__init__("the ledger was not read in the time given; try again, or ask for less")


class BadCursorError(ViewError):
    """`before` was not given out by the page before."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        super().__init__("`before` is not a cursor of ours; use `next` of the page before")
