"""What a reader of the view may be told.

    ViewError
    ├── HistoryTooLargeError   the question asks for more than one answer may hold
    ├── UnknownTagError        the site has no such tag
    ├── LedgerAwayError        there is no ledger to read just now
    ├── OutOfTimeError         the ledger is there, but reading took longer than it may
    └── BadCursorError         `before` is none of ours
"""

from __future__ import annotations


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
        super().__init__(f"a range of {asked_ms} ms; ask for at most {fits_ms} ms at once")


class LedgerAwayError(ViewError):
    """The ledger cannot be read just now; `state` is a `models.LedgerState`."""

    def __init__(self, state: str, detail: str) -> None:
        self.state, self.detail = state, detail
        super().__init__(f"the ledger cannot be read ({state}): {detail}; try again, and see the health of core")


class OutOfTimeError(ViewError):
    """A read took longer than it was given, or no connection came free in time."""

    def __init__(self) -> None:
        super().__init__("the ledger was not read in the time given; try again, or ask for less")


class BadCursorError(ViewError):
    """`before` was not given out by the page before."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        super().__init__("`before` is not a cursor of ours; use `next` of the page before")
