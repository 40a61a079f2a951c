"""The text lines of a notice, Chinese and English: what a duty officer reads first. Pure.

【红色报警】液氯库 1号储罐 CL2.D101（GT-101）氯气浓度 高高 3.2 ppm，
限值 3 ppm，2026-05-01 08:00:00.123。处置：……    (one line)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from alerting.alarm import AlarmState, Category, Transition, TransitionKind
from config import Grade, Names, SiteConfig
from wire import Quality, describe, quality_of

KIND_WORDS: Final = {
    TransitionKind.RAISED: ("报警", "ALARM"),
    TransitionKind.RETURNED: ("销警", "RETURNED TO NORMAL"),
    TransitionKind.ACKNOWLEDGED: ("已确认", "ACKNOWLEDGED"),
    TransitionKind.CLOSED: ("已结案", "CLOSED"),
}
LIMIT_WORDS: Final = {"LL": ("低低", "LL"), "L": ("低", "L"), "H": ("高", "H"), "HH": ("高高", "HH")}
STAMPS_KEPT: Final = 256
FREE_TEXT_CHARS_MAX: Final = 500
"""Longest part of a line that a person or a machine outside wrote."""


@dataclass(frozen=True, slots=True)
class TagWords:
    """How people call a tag, each as (Chinese, English)."""

    named: tuple[str, str]
    """Where it is, its id, its label, its name."""
    guidance: Mapping[str, tuple[str, str]]
    """By limit: LL, L, H, HH."""


class SiteWords:
    """Names of a site's tags and its time zone, compiled once from the configuration."""

    def __init__(self, site: str, name: tuple[str, str], zone: tzinfo, tags: Mapping[str, TagWords]) -> None:
        self.site, self.name, self.zone, self._tags = site, name, zone, tags
        # A flood of alarms shares a few times.
        self.iso = lru_cache(STAMPS_KEPT)(self._iso)
        self._clock = lru_cache(STAMPS_KEPT)(self._clock_text)

    @classmethod
    def compile(cls, site: SiteConfig) -> SiteWords:
        """Take the names out of a checked site."""
        places = {
            item.id: (_place(source.name.zh, item.name.zh), _place(source.name.en, item.name.en))
            for source in site.hazard_sources
            for item in source.equipment
        }
        tags = {}
        for tag in site.tags:
            zh, en = places.get(tag.equipment, (tag.equipment, tag.equipment))
            label_zh, label_en = (f"（{tag.label}）", f" ({tag.label})") if tag.label else ("", "")
            named = (f"{zh} {tag.id}{label_zh} {tag.name.zh}", f"{en} {tag.id}{label_en} {tag.name.en}")
            guidance = {str(row.kind): _pair(row.guidance) for row in tag.limit_rows()}
            tags[tag.id] = TagWords(named, guidance)
        return cls(site.site, _pair(site.name), ZoneInfo(site.timezone), tags)

    def local(self, at_ms: int) -> datetime:
        """Return UTC epoch ms as a time of the site's zone."""
        whole = datetime.fromtimestamp(at_ms // 1000, UTC)
        return whole.replace(microsecond=at_ms % 1000 * 1000).astimezone(self.zone)

    def _iso(self, at_ms: int) -> str:
        """Return UTC epoch ms as ISO 8601 in the site's zone, with its offset."""
        return self.local(at_ms).isoformat(timespec="milliseconds")

    def _clock_text(self, at_ms: int) -> str:
        return self.local(at_ms).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def lines(self, step: Transition) -> dict[str, str]:
        """Return the line for a transition in both languages: {"zh": …, "en": …}."""
        alarm, at = step.alarm, self._clock(step.at_ms)
        return {"zh": self._line_zh(step, alarm, at), "en": self._line_en(step, alarm, at)}

    def _line_zh(self, step: Transition, alarm: AlarmState, at: str) -> str:
        late = "（补报）" if step.late else ""
        head = f"【{Grade(alarm.grade).zh}色{KIND_WORDS[step.kind][0]}】"
        parts = [f"{head}{late}{self._subject(alarm, 0)}，{at}"]
        if step.kind is TransitionKind.RAISED:
            guidance = self._guidance(alarm, 0)
            parts += [f"处置：{guidance}"] if guidance else []
        if step.actor:
            parts.append(f"操作人：{clean(step.actor)}")
        if step.kind is TransitionKind.CLOSED:
            given = (("原因", alarm.reason), ("措施", alarm.measure))
            parts += [f"{word}：{clean(text)}" for word, text in given if text]
        return "。".join(parts) + "。"

    def _line_en(self, step: Transition, alarm: AlarmState, at: str) -> str:
        late = "(late report) " if step.late else ""
        grade = Grade(alarm.grade).en.upper()
        parts = [f"[{grade} {KIND_WORDS[step.kind][1]}] {late}{self._subject(alarm, 1)}, {at}"]
        if step.kind is TransitionKind.RAISED:
            guidance = self._guidance(alarm, 1)
            parts += [f"Action: {guidance}"] if guidance else []
        if step.actor:
            parts.append(f"By: {clean(step.actor)}")
        if step.kind is TransitionKind.CLOSED:
            given = (("Cause", alarm.reason), ("Measure", alarm.measure))
            parts += [f"{word}: {clean(text)}" for word, text in given if text]
        return ". ".join(part.rstrip(".") for part in parts) + "."

    def _subject(self, alarm: AlarmState, lang: int) -> str:
        """Where, which tag, what is wrong with it."""
        if alarm.category is Category.SYSTEM:
            return f"{self.name[lang]} {('监测系统', 'monitoring system')[lang]} {clean(alarm.tag)}"
        tag = self._tags.get(alarm.tag)
        # Without words, the tag has left the configuration while its alarm stood.
        named = clean(alarm.tag) if tag is None else tag.named[lang]
        if alarm.category is Category.FAULT:
            cause = (alarm.cause_zh, alarm.cause_en)[lang] or describe(alarm.code, ("zh", "en")[lang])
            return f"{named} {('仪表故障', 'instrument fault')[lang]}{('：', ': ')[lang]}{clean(cause)}"
        limit = LIMIT_WORDS.get(alarm.limit, (alarm.limit, alarm.limit))[lang]
        return f"{named} {limit} {self._reading(alarm, lang)}"

    def _reading(self, alarm: AlarmState, lang: int) -> str:
        unit = f" {alarm.unit}" if alarm.unit else ""
        value = ("无有效值", "no valid value")[lang] if alarm.value is None else f"{alarm.value:.6g}{unit}"
        doubt = ""
        if quality_of(alarm.code) != Quality.GOOD:
            doubt = ("（{}）", " ({})")[lang].format(describe(alarm.code, ("zh", "en")[lang]))
        if alarm.setpoint is None:
            return value + doubt
        return f"{value}{doubt}{('，限值 ', ', setpoint ')[lang]}{alarm.setpoint:.6g}{unit}"

    def _guidance(self, alarm: AlarmState, lang: int) -> str:
        tag = self._tags.get(alarm.tag)
        return tag.guidance.get(alarm.limit, ("", ""))[lang].rstrip("。.") if tag else ""


def clean(text: str) -> str:
    """Return foreign text as one bounded line: control and format characters become spaces."""
    return "".join(c if c.isprintable() else " " for c in text[:FREE_TEXT_CHARS_MAX])


def _place(source: str, equipment: str) -> str:
    """Join two names, unless the second already says the first."""
    return equipment if source in equipment else f"{source} {equipment}"


def _pair(names: Names) -> tuple[str, str]:
    return names.zh, names.en
