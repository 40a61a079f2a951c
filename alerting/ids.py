"""Ids of transitions: hashes of what happened, so a step keeps its id in any replay or restore."""

from __future__ import annotations

from hashlib import blake2b

ID_BYTES = 16


def event_id(site: str, tag: str, limit: str, stream: int, sequence: int, ordinal: int, kind: str,
             alarm_id: str = "") -> str:
    """Return the id of a step that a sample caused, as 32 hex digits.

    Args:
        ordinal: earlier steps of this (tag, limit) inside the same frame; 0 wherever a frame holds at most
            one sample per tag. It does not depend on how frames were cut into batches.
        alarm_id: empty for a raise, whose id becomes the alarm's. For a return the alarm that returns: one
            sample may end a current alarm and the late record of the same excursion.
    """
    return _hash(f"S{_text(site)}{_text(tag)}{_text(limit)}{stream},{sequence},{ordinal},{kind},{alarm_id}")


def timed_id(site: str, tag: str, limit: str, stream: int, sequence: int, engine_ms: int, kind: str,
             cause: str = "") -> str:
    """Return the id of a step that no sample caused (tick, death, act, system condition).

    Args:
        stream, sequence: the last frame that held the tag; 0 when there was none.
        cause: what tells apart two such steps of one (tag, limit) in one millisecond.
    """
    place = f"{_text(site)}{_text(tag)}{_text(limit)}{stream},{sequence}"
    return _hash(f"T{place},{engine_ms},{kind},{_text(cause)}")


def _text(text: str) -> str:
    # With its length in front no text can run into the next field.
    return f"{len(text)}:{text}"


def _hash(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).hexdigest()
