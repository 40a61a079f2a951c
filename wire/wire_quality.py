"""How our quality codes stand in a Sparkplug metric, where the specification allows 0, 192 and 500 only.

GOOD needs no property, BAD/STALE is 500; everything else is 0 with our own code beside it in `QualityDetail`,
which other hosts ignore.
"""

from __future__ import annotations

from typing import Final

from wire.quality import (
    QUALITY_MASK,
    Quality,
    Reason,
    is_quality_code,
    quality_code,
    quality_of,
    reason_of,
)

WIRE_BAD: Final = 0
WIRE_GOOD: Final = 192
WIRE_STALE: Final = 500

_BAD_UNKNOWN: Final = quality_code(Quality.BAD, Reason.UNKNOWN)
_BAD_STALE: Final = quality_code(Quality.BAD, Reason.STALE)


def quality_on_wire(code: int) -> tuple[int | None, int | None]:
    """Return the properties (`Quality`, `QualityDetail`) that say a code; None where none is to be sent."""
    if quality_of(code) == Quality.GOOD:
        return None, None
    if code == _BAD_STALE:
        return WIRE_STALE, None
    return (WIRE_STALE if reason_of(code) == Reason.STALE else WIRE_BAD), code


def quality_from_wire(quality: int | None, detail: int | None, is_null: bool = False) -> int:
    """Return the code that the two properties and the null flag say.

    Doubt is never resolved towards GOOD: a detail none of ours, or a quality the specification does not know,
    is BAD with unknown reason.
    """
    if quality in (None, WIRE_GOOD) and detail is None:
        return _BAD_UNKNOWN if is_null else int(Quality.GOOD)
    if detail is not None and detail != Quality.GOOD and is_quality_code(detail):
        return detail if not is_null else quality_code(Quality.BAD, Reason(detail & ~QUALITY_MASK))
    return _BAD_STALE if quality == WIRE_STALE else _BAD_UNKNOWN
