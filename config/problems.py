"""What is wrong with a configuration file, said so that the reader knows where and what to do next.

A problem is one line: file, line, column, place, message, hint. Text that came out of the file is escaped, so
a tag name with line breaks or terminal codes cannot forge a second line in a log.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from config.hints_zh import hint_zh

NEAREST_CUTOFF = 0.55
PROBLEMS_SHOWN_MAX = 200

Words = tuple[str, str]
"""One text in English and in Chinese."""

_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_WIDE_SPACE = "\u3000"  # an ordinary space of Chinese text, though Python does not count it as printable


class Severity(StrEnum):
    """An error refuses the file; a warning is shown and the file is used."""

    ERROR = "error"
    WARNING = "warning"


def one_line(text: str) -> str:
    """Return `text` with everything escaped that could end a line, steer a terminal or not be shown."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == _WIDE_SPACE else escaped(char) for char in text)


def escaped(char: str) -> str:
    """Return one character as an escape that YAML and Python both read."""
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing to mend. `line` and `column` count from 1; both are 0 when no file was read.

    `place` is the path inside the document, list items by their id: ``tags[T101.LEVEL].limits.H.setpoint``.
    """

    file: str
    line: int
    column: int
    place: str
    message: str
    hint: str = ""
    message_zh: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return self.describe("en")

    def describe(self, language: str = "en") -> str:
        """Return the whole problem as one line; "zh" falls back to English where there is no Chinese."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        message = self.message_zh if language == "zh" and self.message_zh else self.message
        parts = [where, self.place, message] if self.place else [where, message]
        if not self.hint:
            return one_line(": ".join(parts))
        hint = f"；{hint_zh(self.hint)}" if language == "zh" else f"; {self.hint}"
        return one_line(": ".join(parts) + hint)


class ConfigError(Exception):
    """Root of everything this package raises. `describe` tells it in one of the two languages."""

    def __init__(self, message: str, message_zh: str = "") -> None:
        super().__init__(message)
        self.message_zh = message_zh

    def describe(self, language: str = "en") -> str:
        """Return the whole message; "zh" falls back to English where there is no Chinese."""
        return self.message_zh if language == "zh" and self.message_zh else str(self)


class ConfigErrors(ConfigError):
    """The file is refused. All its problems at once; the running configuration, if any, stays in force."""

    def __init__(self, problems: Iterable[ConfigProblem], warnings: Iterable[ConfigProblem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        super().__init__(self._shown("en"), self._shown("zh"))

    def _shown(self, language: str) -> str:
        shown = [problem.describe(language) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        more = len(self.problems) - PROBLEMS_SHOWN_MAX
        if more > 0:
            shown.append(f"…… 另有 {more} 处" if language == "zh" else f"... and {more} more")
        return "\n".join(shown)


def nearest(word: object, candidates: Iterable[str]) -> str | None:
    """Return the candidate a person most likely meant, or None when none is close."""
    text = str(word)[:100]
    by_folded: dict[str, str] = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.casefold(), candidate)
    found = difflib.get_close_matches(text.casefold(), list(by_folded), n=1, cutoff=NEAREST_CUTOFF)
    return by_folded[found[0]] if found else None


def did_you_mean(word: object, candidates: Iterable[str], listed_max: int = 12) -> str:
    """Return a hint: the nearest candidate, else the list of valid words when it is short, else nothing."""
    words = list(candidates)
    best = words[0] if len(words) == 1 else nearest(word, words)
    if best is not None:
        return f"did you mean {best!r}?"
    if words and len(words) <= listed_max:
        return "valid here: " + ", ".join(words)
    return ""
