"""Cuts what a broker sends into packets, and takes out the plain messages: those at QoS 0, which need no answer.

They are nearly all that arrives. Everything else stays as it came, for a library that knows the protocol's other side.
Pure: no socket, no clock.
"""

from __future__ import annotations

from typing import Final

from wire.mqtt import Message

LENGTH_BYTES_MAX: Final = 4
_RETAINED: Final = 0x31
_PLAIN: Final = (0x30, _RETAINED)


class NamelessMessage:
    """A message whose topic is not UTF-8."""


NAMELESS: Final = NamelessMessage()


class Packets:
    """The packets of one connection, however the network cuts them."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._held = 0
        self._awaited = 0  # bytes, at least, before anything can be complete

    def feed(self, read: bytes) -> list[Message | NamelessMessage | bytes]:
        """Take bytes in; return what is complete: messages at QoS 0, and all other packets as they came.

        A packet whose length is none, or a message shorter than its topic, is returned as bytes, the former with
        all that follows: whoever reads them will find the protocol broken.
        """
        self._rest.append(read)
        self._held += len(read)
        if self._held < self._awaited:  # of a large packet, which is put together once
            return []
        held = self._rest[0] if len(self._rest) == 1 else b"".join(self._rest)
        end, at, self._awaited = len(held), 0, 0
        found: list[Message | NamelessMessage | bytes] = []
        while end - at >= 2:
            length = held[at + 1]
            body = at + 2
            if length > 0x7F:
                length, body = _length(held, at + 1)
                if body == 0:
                    break
                if body < 0:
                    found.append(held[at:])
                    at = end
                    break
            following = body + length
            if following > end:
                self._awaited = following - at
                break
            head = held[at]
            if head in _PLAIN:
                topic_end = body + 2 + (held[body] << 8 | held[body + 1]) if length >= 2 else following + 1
                if topic_end <= following:
                    try:
                        topic = held[body + 2 : topic_end].decode()
                    except UnicodeDecodeError:
                        found.append(NAMELESS)
                    else:
                        found.append(Message(topic, held[topic_end:following], head == _RETAINED))
                    at = following
                    continue
            found.append(held[at:following])
            at = following
        self._rest, self._held = [held[at:]] if at < end else [], end - at
        return found


def _length(held: bytes, at: int) -> tuple[int, int]:
    """Read a length of several bytes; return it and where the body begins: 0 while it is not whole, -1 if it is none."""
    length, shift = 0, 0
    for place in range(at, min(at + LENGTH_BYTES_MAX, len(held))):
        length |= (held[place] & 0x7F) << shift
        if held[place] < 0x80:
            return length, place + 1
        shift += 7
    return 0, -1 if len(held) >= at + LENGTH_BYTES_MAX else 0
