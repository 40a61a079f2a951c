"""Sparkplug topics and the host's STATE message.

Ids are checked more strictly than the specification asks (it forbids + / # only): spaces,
dollar signs and what cannot be printed break brokers or logs; no node of ours has them. Case matters.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wire.datatypes import TIMESTAMP_MS_MAX
from wire.errors import MalformedStateError, MalformedTopicError
from wire.strict_json import JsonRefusedError, parse_json_object

NAMESPACE: Final = "spBv1.0"
ID_BYTES_MAX: Final = 128
TOPIC_CHARS_MAX: Final = 1_024
STATE_BYTES_MAX: Final = 1_024


class MessageKind(StrEnum):
    """The message types of edge nodes and devices; STATE has a topic form of its own."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    NDATA = "NDATA"
    NCMD = "NCMD"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    DDATA = "DDATA"
    DCMD = "DCMD"

    @property
    def of_device(self) -> bool:
        """Whether topics of this kind name a device."""
        return self.value.startswith("D")


@dataclass(frozen=True, slots=True)
class Topic:
    """The parts of a node's or device's topic; `device` is there exactly for the kinds of devices."""

    kind: MessageKind
    group: str
    node: str
    device: str | None = None


def check_id(text: str) -> str:
    """Return an id unchanged if it can stand in a topic, for every broker and every log.

    Raises:
        MalformedTopicError: empty, too long, not printable, or with one of + / # $ or a space in it.
    """
    if not text:
        raise MalformedTopicError(text, "an id is empty")
    for char in text:
        if char in "+/#$" or char.isspace() or not char.isprintable():
            raise MalformedTopicError(text, f"an id must not hold {char!a}")
    if len(text.encode()) > ID_BYTES_MAX:
        raise MalformedTopicError(text, f"an id is longer than {ID_BYTES_MAX} bytes")
    return text


def build_topic(topic: Topic) -> str:
    """Return the topic as MQTT carries it.

    Raises:
        MalformedTopicError: an id that cannot stand in a topic, or a device and a kind that do not agree.
    """
    if (topic.device is not None) is not topic.kind.of_device:
        raise MalformedTopicError(topic.kind, "has a device exactly when it begins with D")
    parts = [NAMESPACE, check_id(topic.group), topic.kind.value, check_id(topic.node)]
    if topic.group == "STATE":
        raise MalformedTopicError(topic.group, "no group can be named like the host's topic")
    if topic.device is not None:
        parts.append(check_id(topic.device))
    return "/".join(parts)


def parse_topic(text: str) -> Topic:
    """Return the parts of a node's or device's topic.

    Raises:
        MalformedTopicError: anything else, a STATE topic included (compare that with `state_topic`).
    """
    if len(text) > TOPIC_CHARS_MAX:
        raise MalformedTopicError(text, "longer than any topic of ours")
    parts = text.split("/")
    if len(parts) not in (4, 5) or parts[0] != NAMESPACE:
        raise MalformedTopicError(text, f"not a topic under {NAMESPACE}/ with three or four parts")
    if parts[1] == "STATE":
        raise MalformedTopicError(text, "a host's topic, not a node's")
    try:
        kind = MessageKind(parts[2])
    except ValueError:
        raise MalformedTopicError(text, "no such message type") from None
    if kind.of_device is not (len(parts) == 5):
        raise MalformedTopicError(text, "has a device exactly when its type begins with D")
    device = check_id(parts[4]) if kind.of_device else None
    return Topic(kind, check_id(parts[1]), check_id(parts[3]), device)


def state_topic(host_id: str) -> str:
    """Return the topic on which a host says whether it is there."""
    return f"{NAMESPACE}/STATE/{check_id(host_id)}"


def node_filter(group: str) -> str:
    """Return the subscription that takes in all that nodes and devices of a group publish."""
    return f"{NAMESPACE}/{check_id(group)}/#"


def encode_state(online: bool, timestamp_ms: int) -> bytes:
    """Return a STATE payload; the will and the birth of one session carry the same timestamp."""
    return json.dumps({"online": online, "timestamp": timestamp_ms}, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class HostState:
    """What a host said of itself, and when, UTC epoch milliseconds."""

    online: bool
    timestamp_ms: int


def decode_state(payload: bytes) -> HostState:
    """Read a STATE payload.

    Raises:
        MalformedStateError: not UTF-8 JSON, too long, a key missing or twice, or a value of the wrong type.
    """
    try:
        state = parse_json_object(payload, STATE_BYTES_MAX)
    except JsonRefusedError as error:
        raise MalformedStateError(str(error)) from None
    online, timestamp = state.get("online"), state.get("timestamp")
    if type(online) is not bool:
        raise MalformedStateError("online is not true or false")
    if type(timestamp) is not int or not 0 <= timestamp <= TIMESTAMP_MS_MAX:
        raise MalformedStateError("timestamp is not in milliseconds since 1970")
    return HostState(online, timestamp)
