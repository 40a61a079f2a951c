"""B1's load: edge nodes that publish DDATA as fast as their acknowledgements allow.

Births, STATE and commands are those of our own edge's session; the frames that follow carry its marks. Their bytes are
made a hundred at a time out of a frame that `encode_data` built, so that the load costs little of the machine.
Spoken to by lines: `go SECONDS` publishes, then waits until the last frame is acknowledged; every answer is one JSON line.
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from config import SiteConfig, edge_hash, export_edge
from edge.messages import Identity
from edge.numbering import Numbering
from edge.points import ALIAS_OF_FIRST_POINT, Point, PointTable
from edge.session import EdgeSession, Forget, Now, Publish, Subscribe
from wire import Message, MessageKind, Native, Topic, build_topic, encode_data, new_stream_id

FRAMES_AT_ONCE: Final = 100
UNACKED_MAX: Final = 16_000
"""Frames of all nodes together: below what core's inbox holds, so that nothing is dropped, and above what passes within a
second, for live frames are acknowledged once a second."""
CALM, SPREAD, OVER = 50.0, 2.0, 90.0
ALARM_EVERY_S: Final = 1.0
VALUES: Final = 1 << 20
START_S_MAX: Final = 30.0
ACKED_S_MAX: Final = 60.0
READ_BYTES: Final = 65_536
QUEUED_BYTES_MAX: Final = 256 * 1024
SEQ_END: Final = 256
STAMP_GROUPS: Final = 6  # of seven bits, in a time stamp of our days

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90


class GeneratorError(Exception):
    """The load cannot go on; the message says why."""


# -- MQTT 3.1.1, as much as the load needs ------------------------------------------------------------------------------


def packet(head: int, body: bytes) -> bytes:
    """Return a control packet."""
    return bytes([head]) + varint(len(body)) + body


def text(words: str | bytes) -> bytes:
    """Return a string or binary field."""
    encoded = words.encode() if isinstance(words, str) else words
    return len(encoded).to_bytes(2, "big") + encoded


def varint(number: int) -> bytes:
    """Return a number in groups of seven bits, lowest first, as MQTT and Protocol Buffers both have it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class Connection:
    """One client's socket, never blocking once it is connected."""

    def __init__(self, port: int, client_id: str, will: Publish) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=START_S_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags = 0x02 | 0x04 | will.qos << 3
        fields = text("MQTT") + b"\x04" + bytes([flags]) + b"\x00\x00" + text(client_id) + text(will.topic) + text(will.payload)
        self.socket.sendall(packet(CONNECT, fields))
        self.waiting = bytearray()
        self._read = bytearray()
        self._packet_id = 0
        kind, body = self._wait()
        if kind != CONNACK or body[1:2] != b"\x00":
            raise GeneratorError(f"the broker refused {client_id}")

    def _wait(self) -> tuple[int, bytes]:
        while True:
            for found in self.packets():
                return found

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """Subscribe; the answer is among the packets to come."""
        self._packet_id += 1
        wanted = b"".join(text(topic) + bytes([qos]) for topic, qos in filters)
        self.waiting += packet(SUBSCRIBE, self._packet_id.to_bytes(2, "big") + wanted)

    def publish(self, message: Publish) -> None:
        """Queue a message at QoS 0."""
        self.waiting += packet(PUBLISH, text(message.topic) + message.payload)

    def send(self) -> None:
        """Send what the socket takes."""
        while self.waiting:
            try:
                sent = self.socket.send(self.waiting)
            except BlockingIOError:
                return
            del self.waiting[:sent]

    def packets(self) -> list[tuple[int, bytes]]:
        """Read once and return the packets that are complete, as (head, body)."""
        try:
            read = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not read:
            raise GeneratorError("the broker closed a connection")
        self._read += read
        found: list[tuple[int, bytes]] = []
        while len(self._read) >= 2:
            length, at, shift = 0, 1, 0
            while at < len(self._read):
                length |= (self._read[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
                if self._read[at - 1] < 0x80:
                    break
            else:
                break
            if len(self._read) < at + length:
                break
            found.append((self._read[0], bytes(self._read[at : at + length])))
            del self._read[: at + length]
        return found

    def message(self, head: int, body: bytes) -> Message:
        """Read a PUBLISH, and acknowledge one of QoS 1."""
        size = int.from_bytes(body[:2], "big")
        at = 2 + size
        if head & 0x06:
            self.waiting += packet(PUBACK, body[at : at + 2])
            at += 2
        return Message(body[2 : 2 + size].decode(), body[at:], bool(head & 1))


# -- frames ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A device's PUBLISH packet, and where in it stands what changes from frame to frame.

    Attributes:
        packet: uint8[bytes].
        stamps: intp[stamps, 6], places of the groups of seven bits of every time stamp.
        values: intp[samples, 8]. number, seq: intp[groups], of the frame's number and Sparkplug's own.
    """

    packet: NDArray[np.uint8]
    stamps: NDArray[np.intp]
    values: NDArray[np.intp]
    number: NDArray[np.intp]
    seq: NDArray[np.intp]


def template(topic: str, alias: NDArray[np.int64], stream: int, number_width: int, seq_width: int, now_ms: int) -> Template:
    """Build a frame whose numbers have so many groups; others that differ in one thing tell where that stands."""
    rows = len(alias)
    good = np.full(rows, 192, np.uint8)

    def build(stamp_ms: int, leading: int, value: bytes) -> NDArray[np.uint8]:
        values, stamps = np.full(rows, np.frombuffer(8 * value)[0]), np.full(rows, stamp_ms, np.int64)
        sequence = (leading << 7 * (number_width - 1)) | _every_group(number_width - 1)
        payload = encode_data(stamp_ms, (1, 128)[seq_width - 1], stream, sequence, alias, values, good, stamps)
        return np.frombuffer(packet(PUBLISH, text(topic) + payload), np.uint8)

    plain = build(now_ms, 2, b"\x01")
    stamps = np.flatnonzero(plain != build(now_ms ^ _every_group(STAMP_GROUPS), 2, b"\x01")).reshape(-1, STAMP_GROUPS)
    values = np.flatnonzero(plain != build(now_ms, 2, b"\x02")).reshape(rows, 8)
    (top,) = np.flatnonzero(plain != build(now_ms, 3, b"\x01")).tolist()
    return Template(
        plain, stamps, values, np.arange(top + 1 - number_width, top + 1), np.arange(len(plain) - seq_width, len(plain))
    )


def _every_group(groups: int) -> int:
    """A number with the lowest bit of every group set."""
    return sum(1 << 7 * group for group in range(groups))


def groups_of(numbers: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """Return uint8[n, width]: numbers in groups of seven bits, all of one width."""
    split = (numbers[:, None] >> (7 * np.arange(width))) & 0x7F
    split[:, :-1] |= 0x80
    return split.astype(np.uint8)


@dataclass(slots=True)
class Node:
    """One edge node: its session, its connection and its place in its stream."""

    name: str
    session: EdgeSession
    link: Connection
    topics: list[str]
    aliases: list[NDArray[np.int64]]
    numbering: Numbering
    now: Callable[[], Now]
    born: int = 0
    number: int = 0
    first: int = 0
    seq: int = 0
    acked: int = 0
    samples: int = 0
    most_unacked: int = 0
    read_ms: dict[int, int] = field(default_factory=dict)
    templates: dict[tuple[int, int, int], Template] = field(default_factory=dict)

    def take(self) -> None:
        """Read what has come."""
        for head, body in self.link.packets():
            if head & 0xF0 == PUBLISH:
                message = self.link.message(head, body)
                if self.born and not message.topic.startswith("spBv1.0/STATE"):
                    self._command(message)
                    continue
                self._obey(self.session.message(message, self.now()))
            elif head == SUBACK:
                self._obey(self.session.subscribed(self.now()))

    def _command(self, message: Message) -> None:
        births = self.session.births
        for command in self.session.message(message, self.now()):
            if isinstance(command, Forget) and command.stream == self.numbering.stream:
                self.acked = max(self.acked, command.upto)
        if self.session.births != births:
            raise GeneratorError(f"{self.name} was asked for a rebirth: a frame was lost on the way")

    def _obey(self, commands: list[Any]) -> None:
        for command in commands:
            if isinstance(command, Subscribe):
                self.link.subscribe(command.filters)
            elif isinstance(command, Publish):
                self.link.publish(command)
                self.born += 1
        if self.born:
            self.first = self.number = self.numbering.last
            self.seq = self.born - 1
            self.samples = sum(map(len, self.aliases))

    def begin(self) -> None:
        """Ask for what a session needs."""
        self._obey(self.session.connected(self.now()))

    @property
    def unacked(self) -> int:
        """Frames that the gateway has not acknowledged."""
        return self.number - self.acked

    def make(self, frames: int, values: NDArray[np.float64], alarm: bool) -> bool:
        """Queue the next frames, their devices in turn; `alarm` puts a tag over its limit and back, if two of a device follow.

        Args:
            values: float64[frames * samples of the largest device], used in any order.
        """
        count = min(frames, _same_width(self.number + 1), _same_width(self.seq + 1 if self.seq + 1 < SEQ_END else 0, SEQ_END))
        numbers = self.number + 1 + np.arange(count)
        seqs = (self.seq + 1 + np.arange(count)) % SEQ_END
        now_ms, devices = self.now().ms, len(self.topics)
        out: list[bytes] = [b""] * count
        raised = False
        for device in range(min(devices, count)):
            owner = (self.number + 1 + device) % devices
            mine, my_seqs = numbers[device::devices], seqs[device::devices]
            shape = self._template(owner, len(varint(int(mine[0]))), len(varint(int(my_seqs[0]))), now_ms)
            rows, samples = len(mine), len(shape.values)
            packets = np.empty((rows, len(shape.packet)), np.uint8)
            packets[:] = shape.packet
            packets[:, shape.stamps] = groups_of(self._stamps(owner, rows, now_ms), STAMP_GROUPS)[:, None, :]
            own = values[: rows * samples].reshape(rows, samples)
            if alarm and not raised and rows > 1:
                own, raised = own.copy(), True
                own[0, 0], own[1, 0] = OVER, CALM
            packets[:, shape.values] = np.ascontiguousarray(own).view(np.uint8).reshape(rows, samples, 8)
            packets[:, shape.number] = groups_of(mine, len(shape.number))
            packets[:, shape.seq] = groups_of(my_seqs, len(shape.seq))
            out[device::devices] = [row.tobytes() for row in packets]
            self.samples += rows * samples
        self.link.waiting += b"".join(out)
        self.number += count
        self.seq = int(seqs[-1])
        self.most_unacked = max(self.most_unacked, self.unacked)
        return raised

    def _stamps(self, device: int, frames: int, now_ms: int) -> NDArray[np.int64]:
        """Return when a device's next frames were read: since its last one, in even steps of a millisecond at least."""
        last_ms = self.read_ms.get(device, now_ms - frames)
        step = 1 + np.arange(frames)
        stamps = last_ms + np.maximum(step, (now_ms - last_ms) * step // frames)
        self.read_ms[device] = int(stamps[-1])
        return stamps

    def _template(self, device: int, number_width: int, seq_width: int, now_ms: int) -> Template:
        key = device, number_width, seq_width
        if key not in self.templates:
            self.templates[key] = template(
                self.topics[device], self.aliases[device], self.numbering.stream, number_width, seq_width, now_ms
            )
        return self.templates[key]


def _same_width(number: int, end: int = 1 << 62) -> int:
    """How many numbers from this one on take as many groups, below `end`."""
    return min(end, 1 << 7 * len(varint(number))) - number


# -- the load ---------------------------------------------------------------------------------------------------------------


class Load:
    """All nodes of a site on one broker."""

    def __init__(self, site: SiteConfig, port: int, seed: int) -> None:
        chance = random.Random(seed)
        self._values = CALM + SPREAD * (2 * np.random.default_rng(seed).random(VALUES, np.float32) - 1).astype(np.float64)
        self._at = 0
        self.alarms = 0
        self._alarm_due_s = 0.0
        self.nodes = [self._node(site, edge.id, port, chance) for edge in site.edges]
        self._ready = selectors.DefaultSelector()
        for node in self.nodes:
            node.link.socket.setblocking(False)
            self._ready.register(node.link.socket, selectors.EVENT_READ, node)

    @staticmethod
    def _node(site: SiteConfig, name: str, port: int, chance: random.Random) -> Node:
        file = export_edge(site, name)
        devices = file.edge.devices
        table = PointTable.of(
            (device.id, [Point(point.tag, Native[point.type.upper()], point.scale, point.offset) for point in device.points])
            for device in devices
        )
        numbering = Numbering(table.device_of, len(table.devices), lambda: new_stream_id(chance))
        session = EdgeSession(
            Identity(site.site, name, site.host_id, edge_hash(file), "benchmark"), table, numbering, -1, lambda: ()
        )
        will = session.connecting(_now())
        link = Connection(port, f"load-{name}", Publish(will.topic, will.payload, will.qos))
        topics = [build_topic(Topic(MessageKind.DDATA, site.site, name, device)) for device in table.devices]
        aliases = [
            np.flatnonzero(table.device_of == at).astype(np.int64) + ALIAS_OF_FIRST_POINT for at in range(len(table.devices))
        ]
        return Node(name, session, link, topics, aliases, numbering, _now)

    def be_born(self) -> None:
        """Connect every node and wait until its births are out and acknowledged."""
        for node in self.nodes:
            node.begin()
        deadline_s = time.monotonic() + START_S_MAX
        while not all(node.born and not node.unacked for node in self.nodes):
            if time.monotonic() > deadline_s:
                raise GeneratorError("the gateway did not acknowledge the births")
            self._turn(0.05)

    def publish(self, seconds: float, unacked_max: int = UNACKED_MAX) -> dict[str, Any]:
        """Publish for so long, then wait for the last acknowledgement; return what happened."""
        share = unacked_max // len(self.nodes)
        before = {"frames": self.frames, "samples": self.samples}
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            full = True
            for node in self.nodes:
                room = share - node.unacked
                if room <= 0 or len(node.link.waiting) > QUEUED_BYTES_MAX:
                    continue
                full = False
                self._make(node, min(room, FRAMES_AT_ONCE))
            self._turn(0.002 if full else 0.0)
        published_s = time.monotonic() - began_s
        while any(node.unacked for node in self.nodes):
            if time.monotonic() - began_s - published_s > ACKED_S_MAX:
                break
            self._turn(0.02)
        return {
            "published_s": published_s, "acked_s": time.monotonic() - began_s,
            "frames": self.frames - before["frames"], "samples": self.samples - before["samples"],
            "unacked": sum(node.unacked for node in self.nodes), "alarms": self.alarms,
            "most_unacked": sum(node.most_unacked for node in self.nodes),
        }  # fmt: skip

    def _make(self, node: Node, frames: int) -> None:
        wanted = frames * max(map(len, node.aliases))
        self._at = self._at + 1 if self._at + wanted + 1 <= VALUES else 0
        now_s = time.monotonic()
        alarm = node is self.nodes[0] and now_s >= self._alarm_due_s
        if node.make(frames, self._values[self._at : self._at + wanted], alarm):
            self.alarms += 1
            self._alarm_due_s = now_s + ALARM_EVERY_S

    def _turn(self, timeout_s: float) -> None:
        for node in self.nodes:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if node.link.waiting else 0)
            if self._ready.get_key(node.link.socket).events != wanted:
                self._ready.modify(node.link.socket, wanted, node)
        for key, events in self._ready.select(timeout_s):
            node = key.data
            if events & selectors.EVENT_READ:
                node.take()
            if node.link.waiting:
                node.link.send()

    @property
    def frames(self) -> int:
        """Frames published, births included."""
        return sum(node.number for node in self.nodes)

    @property
    def samples(self) -> int:
        """Samples published, births included."""
        return sum(node.samples for node in self.nodes)


def _now() -> Now:
    return Now(time.monotonic(), time.time_ns() // 1_000_000)


def main(site_path: str, port: str, seed: str) -> None:
    """Run until stdin ends."""
    load = Load(SiteConfig.model_validate(json.loads(Path(site_path).read_text("utf-8"))), int(port), int(seed))
    load.be_born()
    _say({"frames": load.frames, "samples": load.samples})
    for line in sys.stdin:
        word, seconds = line.split()
        if word == "go":
            _say(load.publish(float(seconds)))


def _say(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
