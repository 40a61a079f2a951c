"""How far a sample can be trusted, in one byte: quality in the upper two bits, reason in the lower six.

The numbers of the qualities are those of OPC classic (BAD 0, UNCERTAIN 64, GOOD 192), so codes of different
quality compare by size: the larger is the more trustworthy. This module knows nothing of Sparkplug's own
three quality values; `payload` translates.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

QUALITY_MASK = 0xC0
REASON_MASK = 0x3F

Language = Literal["zh", "en"]


class Quality(IntEnum):
    """BAD: the value is NaN. UNCERTAIN: may raise an alarm, never lower one. GOOD: may do both."""

    BAD = 0
    UNCERTAIN = 64
    GOOD = 192


class Reason(IntEnum):
    """Why a sample is not GOOD. All are below 64, so they fit beside a `Quality` in one byte."""

    NONE = 0
    COMM = 1
    SENSOR_FAULT = 2
    STALE = 3
    CONFIG = 4
    RANGE = 5
    NOT_A_NUMBER = 6
    OVERFLOW = 7
    DEVICE_FAULT = 8
    BUSY = 9
    OFFLINE = 10
    UNKNOWN = 11


_QUALITY_WORDS = {
    Quality.BAD: {"zh": "坏值", "en": "bad"},
    Quality.UNCERTAIN: {"zh": "可疑", "en": "uncertain"},
    Quality.GOOD: {"zh": "有效", "en": "good"},
}
_REASON_WORDS = {
    Reason.COMM: {"zh": "通信中断", "en": "no communication"},
    Reason.SENSOR_FAULT: {"zh": "传感器故障", "en": "sensor fault"},
    Reason.STALE: {"zh": "数据陈旧", "en": "stale"},
    Reason.CONFIG: {"zh": "配置错误", "en": "configuration error"},
    Reason.RANGE: {"zh": "超出量程", "en": "beyond range"},
    Reason.NOT_A_NUMBER: {"zh": "非数值", "en": "not a number"},
    Reason.OVERFLOW: {"zh": "数值溢出", "en": "overflow"},
    Reason.DEVICE_FAULT: {"zh": "设备故障", "en": "device fault"},
    Reason.BUSY: {"zh": "设备忙", "en": "device busy"},
    Reason.OFFLINE: {"zh": "离线", "en": "offline"},
    Reason.UNKNOWN: {"zh": "原因不明", "en": "unknown reason"},
}


def quality_code(quality: Quality, reason: Reason = Reason.NONE) -> int:
    """Return the code byte of a quality and a reason."""
    return int(quality) | int(reason)


@overload
def quality_of(code: int) -> int: ...
@overload
def quality_of(code: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
def quality_of(code: int | NDArray[np.uint8]) -> int | NDArray[np.uint8]:
    """Return the quality part of a code or of a column of codes; compares equal to `Quality` members."""
    return code & np.uint8(QUALITY_MASK) if isinstance(code, np.ndarray) else code & QUALITY_MASK


@overload
def reason_of(code: int) -> int: ...
@overload
def reason_of(code: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
def reason_of(code: int | NDArray[np.uint8]) -> int | NDArray[np.uint8]:
    """Return the reason part of a code or of a column of codes; compares equal to `Reason` members."""
    return code & np.uint8(REASON_MASK) if isinstance(code, np.ndarray) else code & REASON_MASK


def is_quality_code(code: int) -> bool:
    """Tell whether a number from outside is one of our codes: quality and reason known, GOOD bare."""
    return code in _KNOWN_CODES


def describe(code: int, lang: Language) -> str:
    """Return a code in words, as `坏值/通信中断` or `bad/no communication`; unknown parts are named so."""
    quality, reason = code & QUALITY_MASK, code & REASON_MASK
    words = _QUALITY_WORDS.get(quality, _QUALITY_WORDS[Quality.BAD])  # type: ignore[call-overload]
    if reason == Reason.NONE:
        return str(words[lang])
    cause = _REASON_WORDS.get(reason, _REASON_WORDS[Reason.UNKNOWN])  # type: ignore[call-overload]
    return f"{words[lang]}/{cause[lang]}"


_KNOWN_CODES = frozenset(
    [quality_code(Quality.GOOD)]
    + [quality_code(quality, reason) for quality in (Quality.BAD, Quality.UNCERTAIN) for reason in Reason]
)
