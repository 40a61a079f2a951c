"""How somebody else's history becomes samples of ours: which column is what, in which unit, zone and words.

Typed by a person beside the file that is to be imported; `load_history_mapping` reads it as strictly as a site file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, field_validator, model_validator

from config.model import Closed, ExplainedError, Number, TagId, Whole, custom_word_error
from config.problems import ConfigErrors
from config.structure import Locator, structure_problems
from config.yaml_tree import read_tree
from wire import Quality, Reason, is_quality_code, quality_code

Text = Annotated[str, Field(min_length=1, max_length=256)]

QUALITY_CODES: dict[str, int] = {
    quality.name if reason is Reason.NONE else f"{quality.name}/{reason.name}": quality_code(quality, reason)
    for quality in reversed(Quality) for reason in Reason if is_quality_code(quality_code(quality, reason))
}  # fmt: skip
"""GOOD, UNCERTAIN, UNCERTAIN/RANGE, BAD, BAD/COMM …"""


def _code(given: Any) -> Any:
    if isinstance(given, str) and given in QUALITY_CODES:
        return QUALITY_CODES[given]
    raise custom_word_error("not a quality of ours", given, list(QUALITY_CODES))


def _encoding(given: Any) -> Any:
    """What people call it: GBK and GB2312 are parts of GB 18030."""
    word = given.lower() if isinstance(given, str) else given
    return {"gbk": "gb18030", "gb2312": "gb18030", "utf8": "utf-8"}.get(word, word) if isinstance(word, str) else given


QualityCode = Annotated[
    int, BeforeValidator(_code), WithJsonSchema({"type": "string", "enum": list(QUALITY_CODES)})
]


_TIME_FORMATS = ("iso", "epoch_s", "epoch_ms", "epoch_us", "excel")


class HistoryTime(Closed):
    """Where the time of a row stands, and how it is written."""

    column: Text
    format: str = Field(
        default="iso", min_length=1, max_length=64,
        description="iso, epoch_s, epoch_ms, epoch_us, excel (days since 1900), or a pattern such as %Y/%m/%d %H:%M:%S",
    )  # fmt: skip
    timezone: str | None = Field(default=None, description="of times that name none; the site's by default")

    @field_validator("format")
    @classmethod
    def _known_format(cls, word: str) -> str:
        if word not in _TIME_FORMATS and "%" not in word:
            raise custom_word_error("no format of times", word, [*_TIME_FORMATS, "%Y-%m-%d %H:%M:%S"])
        return word

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str | None) -> str | None:
        try:
            ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ExplainedError(
                f"{name!r} is not a time zone; in China write Asia/Shanghai", f"没有时区 {name!r}；中国写 Asia/Shanghai"
            ) from error
        return name


class HistoryQuality(Closed):
    """What the words of a quality column mean."""

    column: Text | None = Field(default=None, description="of the long layout; a series of the wide one names its own")
    words: dict[Text, QualityCode] = Field(max_length=200, description='their word to ours: {"192": GOOD, "坏": BAD/COMM}')
    other: QualityCode | None = Field(default=None, description="of every other word; without it one is an error")


class HistorySeries(Closed):
    """One foreign series and the tag it becomes: value = foreign * scale + offset, in the tag's unit."""

    source: Text = Field(description="long: the word in the tag column; wide: the column's name")
    tag: TagId
    scale: Number = 1.0
    offset: Number = 0.0
    quality_column: Text | None = Field(default=None, description="of the wide layout")
    same_tag: bool = Field(  # not of what a load is known by: it decides nothing but whether this is an error
        default=False, exclude=True, description="of the long layout: another series is this tag, too (a renamed point)"
    )

    @field_validator("scale")
    @classmethod
    def _tells_something(cls, scale: float) -> float:
        if scale == 0:
            raise ExplainedError("a scale of 0 makes every value the same", "scale 为 0 会使所有数值相同")
        return scale


class HistoryMapping(Closed):
    """A foreign file, described."""

    version: Literal[1]
    layout: Literal["long", "wide"] = Field(description="long: a row is one sample; wide: a row is one time, a column one tag")
    encoding: Annotated[Literal["utf-8", "gb18030"], BeforeValidator(_encoding)] = Field(
        default="utf-8", description="of CSV; GBK and GB2312 are gb18030"
    )
    delimiter: Literal[",", ";", "\t", "|"] = Field(default=",", description="of CSV")
    header_line: Whole = Field(default=1, ge=1, le=1000, description="line of CSV that names the columns; lines before are left out")
    time: HistoryTime
    tag_column: Text | None = Field(default=None, description="of the long layout")
    value_column: Text | None = Field(default=None, description="of the long layout")
    raw_column: Text | None = Field(default=None, description="of the long layout: as measured, where the value was clamped")
    quality: HistoryQuality | None = Field(default=None, description="without it all that has a value is GOOD")
    missing: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        default=("", "NaN", "nan", "NULL", "null", "---"), max_length=50, description="what stands for no value"
    )
    missing_is: Literal["skip", "bad"] = Field(default="skip", description="a row without a value is left out, or a BAD sample")
    series: tuple[HistorySeries, ...] = Field(default=(), max_length=100_000)
    unlisted: Literal["refuse", "skip", "same"] = Field(
        default="refuse", description="of the long layout: words not in series are an error, left out, or tag ids of ours already"
    )

    @model_validator(mode="after")
    def _of_one_layout(self) -> HistoryMapping:
        names = ("tag_column", "value_column")
        if self.layout == "long":
            for name in names:
                if getattr(self, name) is None:
                    raise ExplainedError(f"the long layout needs {name}", f"long 布局需要 {name}", at=(name,))
            if self.unlisted != "same" and not self.series:
                raise ExplainedError(
                    "no series is listed; name them, or write unlisted: same", "未列出 series；请列出，或写 unlisted: same"
                )
            if self.quality is not None and self.quality.column is None:
                raise ExplainedError(
                    "the long layout needs quality.column", "long 布局需要 quality.column", at=("quality", "column")
                )
        else:
            for name in (*names, "raw_column"):
                if getattr(self, name) is not None:
                    raise ExplainedError(f"{name} belongs to the long layout", f"{name} 属于 long 布局", at=(name,))
            if not self.series:
                raise ExplainedError(
                    "the wide layout needs series: a column for each tag", "wide 布局需要 series：每个测点一列", at=("series",)
                )
        for at, one in enumerate(self.series):
            if one.quality_column is not None and (self.layout == "long" or self.quality is None):
                raise ExplainedError(
                    "quality_column needs the wide layout and the words under quality",
                    "quality_column 需要 wide 布局，并在 quality 下给出 words", at=("series", at, "quality_column"),
                )  # fmt: skip
        for key in ("source", "tag") if self.layout == "wide" else ("source",):
            seen: set[str] = set()
            for at, one in enumerate(self.series):
                word = getattr(one, key)
                if word in seen:
                    raise ExplainedError(f"{key} {word!r} stands twice", f"{key} {word!r} 出现两次", at=("series", at, key))
                seen.add(word)
        first: dict[str, str] = {}
        for at, one in enumerate(self.series):
            if one.tag in first and not one.same_tag:
                raise ExplainedError(
                    f"{first[one.tag]} and {one.source} both become {one.tag}; if they are one point (renamed), write same_tag: true",
                    f"{first[one.tag]} 和 {one.source} 都对应 {one.tag}；若确为同一测点（曾改名），请写 same_tag: true",
                    at=("series", at, "tag"),
                )
            first.setdefault(one.tag, one.source)
        return self


def load_history_mapping(path: Path | str) -> HistoryMapping:
    """Return the mapping at `path`. Raises ConfigErrors, all problems at once."""
    root = read_tree(Path(path))
    try:
        return HistoryMapping.model_validate(root.plain())
    except ValidationError as error:
        raise ConfigErrors(structure_problems(error, HistoryMapping, Locator(str(path), root))) from error
