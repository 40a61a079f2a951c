"""What an answer means, and when to try again. Pure: facts in, decisions out.

Red and orange follow a tight schedule without end; yellow and blue follow the example table of
Standard Webhooks 1.0.0 and then repeat its last delay. Nothing here ever gives a notice up.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from wire import JsonRefusedError, parse_json

URGENT_LANES: Final = frozenset({"red", "orange"})
URGENT_DELAYS_MS: Final = (1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
"""Delay before attempt 2, 3, …; the first goes at once, the last repeats."""
PATIENT_DELAYS_MS: Final = (
    5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 50_400_000, 72_000_000, 86_400_000,
)  # fmt: skip
PARKED_DELAY_MS: Final = 60_000
JITTER: Final = 0.2
RETRY_AFTER_URGENT_MS_MAX: Final = 60_000
RETRY_AFTER_PATIENT_MS_MAX: Final = 86_400_000
REFUSALS_MAX: Final = 3
"""Definite refusals after which a notice no longer holds anything else back."""
CLOCK_SKEW_MS_MAX: Final = 240_000
"""Receivers tolerate 5 minutes; past 4 a refusal is put down to the clocks."""
DETAIL_CHARS_MAX: Final = 300
ANSWER_BYTES_MAX: Final = 64 * 1024
ANSWER_DEPTH_MAX: Final = 32
NOT_DEFINITE: Final = frozenset({401, 403, 408, 425, 429})


class Outcome(StrEnum):
    ACCEPTED = "accepted"
    RETRY = "retry"
    REFUSED = "refused"
    """A definite no: repeating the same bytes is not expected to help."""


@dataclass(frozen=True, slots=True)
class BodyRule:
    """Where a receiver's answer body says whether it took the notice.

    Args:
        field: dotted path into the JSON body, e.g. "code" or "result.code".
        accepted: values, as text, that mean "taken" (JSON true is "true", 0 is "0").
        permanent: values that mean "never": a definite refusal. Any other value is retried.
    """

    field: str
    accepted: frozenset[str]
    permanent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """What counts as success. `ok_statuses` None means any 2xx."""

    ok_statuses: frozenset[int] | None = None
    body: BodyRule | None = None

    def status_is_ok(self, status: int) -> bool:
        return 200 <= status <= 299 if self.ok_statuses is None else status in self.ok_statuses


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer. `body` holds at most 64 KiB; `truncated` says that there was more."""

    status: int
    body: bytes = b""
    truncated: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    """retry-after, date, location and content-encoding, names in lower case; others are not kept."""


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    detail: str
    status: int | None = None
    retry_after_ms: int | None = None


def judge(answer: Answer, rule: AnswerRule, wall_ms: int) -> Verdict:
    """Say what an answer means for its notice.

    Args:
        wall_ms: our clock (UTC epoch ms) when the answer was complete, to recognise a receiver whose
            clock is off: it refuses every signature, which is no verdict on the notice.
    """
    status = answer.status
    if rule.status_is_ok(status):
        if rule.body is not None:
            return _judge_body(answer, rule.body)
        return Verdict(Outcome.ACCEPTED, "accepted", status)
    if 300 <= status <= 399:
        location = printable(answer.headers.get("location", "?"))
        detail = f"redirect {status} to {location} not followed; enter the final address as the url"
        return Verdict(Outcome.RETRY, detail[:DETAIL_CHARS_MAX], status)
    skew_ms = _skew_ms(answer, wall_ms)
    skewed = skew_ms is not None and abs(skew_ms) > CLOCK_SKEW_MS_MAX
    if 400 <= status <= 499 and status not in NOT_DEFINITE and not skewed:
        return Verdict(Outcome.REFUSED, f"HTTP {status}: {_excerpt(answer)}", status)
    detail = f"HTTP {status}: {_excerpt(answer)}"
    if 400 <= status <= 499 and skewed and skew_ms is not None:
        side = "ahead of" if skew_ms > 0 else "behind"
        off_s = abs(skew_ms) / 1000
        detail = f"HTTP {status}: the receiver's clock is {off_s:.0f} s {side} ours; set the clocks"
    elif status in (401, 403):
        detail = f"HTTP {status}: signature or access refused; check secret and clocks; {_excerpt(answer)}"
    return Verdict(Outcome.RETRY, detail[:DETAIL_CHARS_MAX], status, retry_after_ms(answer, wall_ms))


def _judge_body(answer: Answer, rule: BodyRule) -> Verdict:
    status = answer.status
    if answer.truncated:
        return Verdict(Outcome.RETRY, f"HTTP {status}, but the answer is longer than can be judged", status)
    try:
        found = parse_json(answer.body, ANSWER_BYTES_MAX, ANSWER_DEPTH_MAX)
    except JsonRefusedError as error:
        return Verdict(Outcome.RETRY, f"HTTP {status}, but the body is not JSON ({error}): {_excerpt(answer)}", status)
    for name in rule.field.split("."):
        if not isinstance(found, dict) or name not in found:
            return Verdict(Outcome.RETRY, f"HTTP {status}, but the body has no {rule.field}", status)
        found = found[name]
    code = found if isinstance(found, str) else json.dumps(found)
    if code in rule.accepted:
        return Verdict(Outcome.ACCEPTED, f"accepted, {rule.field} = {printable(code)}", status)
    outcome = Outcome.REFUSED if code in rule.permanent else Outcome.RETRY
    detail = f"HTTP {status}, but {rule.field} = {printable(code)}: {_excerpt(answer)}"
    return Verdict(outcome, detail[:DETAIL_CHARS_MAX], status, retry_after_ms(answer, 0))


def retry_after_ms(answer: Answer, wall_ms: int) -> int | None:
    """Return the Retry-After of an answer in ms (None: absent or unusable), seconds or HTTP date.

    A date counts from the receiver's own Date when it sends one, so its clock error cancels out.
    """
    text = answer.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(int(text[:9]), 10**9) * 1000
    until_ms = _http_date_ms(text)
    if until_ms is None:
        return None
    from_ms = _http_date_ms(answer.headers.get("date", ""))
    return max(0, until_ms - (wall_ms if from_ms is None else from_ms))


def delay_ms(
    *,
    urgent: bool,
    attempts: int,
    jitter: float,
    retry_after_ms: int | None = None,
    refused_out: bool = False,
) -> int:
    """Return the ms from the end of a failed attempt to the next.

    Args:
        urgent: a red or orange lane.
        attempts: attempts made so far, this one included (1, 2, …).
        jitter: a random number in [-1, 1]; spreads the delay by up to 20 %.
        retry_after_ms: what the receiver asked for; honoured up to 60 s (urgent) or one day, and
            never undercut by jitter.
        refused_out: the notice was definitely refused three times (parked, or a regulator's).
    """
    if attempts < 1 or not -1.0 <= jitter <= 1.0 or math.isnan(jitter):
        raise ValueError(f"attempts {attempts} must be >= 1 and jitter {jitter} within [-1, 1]")
    if refused_out:
        base = PARKED_DELAY_MS
    else:
        table = URGENT_DELAYS_MS if urgent else PATIENT_DELAYS_MS
        base = table[min(attempts, len(table)) - 1]
    spread = round(base * (1 + JITTER * jitter))
    asked = min(retry_after_ms or 0, RETRY_AFTER_URGENT_MS_MAX if urgent else RETRY_AFTER_PATIENT_MS_MAX)
    return max(spread, asked)


def longest_delay_ms(*, urgent: bool, attempts: int, parked: bool = False) -> int:
    """Return the longest delay the schedule can give after so many attempts: what a stored due time is cut to after a restart.

    It was stored by a clock that may have been set back since. What the receiver asked for beyond this is not waited.
    """
    return delay_ms(urgent=urgent, attempts=max(1, attempts), jitter=1.0, refused_out=parked)


def printable(text: str) -> str:
    """Return text of a foreign machine as one bounded line without control characters."""
    line = "".join(c if c.isprintable() else " " for c in text[:DETAIL_CHARS_MAX])
    return " ".join(line.split())


def _excerpt(answer: Answer) -> str:
    if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        return "(compressed answer, not read)"
    return printable(answer.body[: 2 * DETAIL_CHARS_MAX].decode("utf-8", "replace"))[:160] or "(empty body)"


def _skew_ms(answer: Answer, wall_ms: int) -> int | None:
    theirs = _http_date_ms(answer.headers.get("date", ""))
    return None if theirs is None else theirs - wall_ms


def _http_date_ms(text: str) -> int | None:
    try:
        return round(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
