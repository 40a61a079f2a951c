"""An edge box: its buses, the devices on them, and which register carries which tag."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from config.model import Closed, ExplainedError, Host, Id, Names, Number, Port, TagId, Whole

Table = Literal["holding", "input", "coil", "discrete"]
PointType = Literal["bit", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]

REGISTERS_OF: dict[str, int] = {
    "bit": 1, "u16": 1, "i16": 1, "u32": 2, "i32": 2, "f32": 2, "u64": 4, "i64": 4, "f64": 4,
}  # fmt: skip
WHOLE_NUMBER_RANGE: dict[str, tuple[int, int]] = {
    "bit": (0, 1),
    "u16": (0, 2**16 - 1), "i16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1),
}  # fmt: skip


class BusConfig(Closed):
    """One connection to instruments."""

    id: Id
    kind: Literal["modbus_tcp"] = "modbus_tcp"
    host: Host = Field(description="address of the device or serial server")
    port: Port = 502
    connect_timeout_s: Number = Field(default=3.0, ge=0.1, le=60)


class PointConfig(Closed):
    """Where one tag stands in a device. `value = raw * scale + offset`, in the tag's unit."""

    tag: TagId
    table: Table = Field(description="holding (function 3), input (4), coil (1), discrete (2)")
    address: Whole = Field(ge=0, le=65535, description="on the wire, from 0: often the printed number minus 1")
    type: PointType = Field(description="bit, or the native number: u16 i16 u32 i32 u64 i64 f32 f64")
    bit: Whole | None = Field(
        default=None, ge=0, le=15, description="which bit of a register; not for coil and discrete"
    )
    word_order: WordOrder | None = Field(default=None, description="when it differs from the device's")
    scale: Number = Field(default=1.0, description="not 0")
    offset: Number = 0.0

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, scale: float) -> float:
        if scale == 0:
            raise ExplainedError("a scale of 0 makes every value the same", "scale 为 0 会使所有值相同")
        return scale

    @property
    def registers(self) -> int:
        """How many registers (or coils) the point takes."""
        return REGISTERS_OF[self.type]

    def value_span(self) -> tuple[float, float] | None:
        """Return the lowest and highest value the register can express; None for floating point."""
        whole = WHOLE_NUMBER_RANGE.get(self.type)
        if whole is None:
            return None
        ends = sorted(end * self.scale + self.offset for end in whole)
        return ends[0], ends[1]


class DeviceConfig(Closed):
    """One Modbus unit."""

    id: Id
    name: Names | None = None
    bus: Id = Field(description="id of one of this edge's buses")
    unit: Whole = Field(ge=0, le=255, description="Modbus unit id")
    period_s: Number = Field(default=1.0, ge=0.05, le=3600, description="from one poll to the next")
    timeout_s: Number = Field(default=1.0, ge=0.02, le=60, description="for one answer")
    word_order: WordOrder = Field(
        default="ABCD",
        description="of values of more than one byte; 123456.0 as ABCD is 47F1 2000, as CDAB 2000 47F1",
    )
    transaction_id: Literal["match", "ignore"] = Field(
        default="match", description="ignore: for a device that does not echo it"
    )
    pause_ms: Number = Field(default=0.0, ge=0, le=60000, description="least silence between two requests")
    registers_max: Whole = Field(default=125, ge=1, le=125, description="most registers in one read")
    gap_max: Whole = Field(default=8, ge=0, le=120, description="most unused registers read along to save a request")
    points: tuple[PointConfig, ...] = Field(default=(), max_length=20000)


class SpoolConfig(Closed):
    """The edge's own store of frames that the gateway has not acknowledged."""

    max_bytes: Whole = Field(default=2_100_000_000, ge=1_000_000, description="the disk it may take")


class EdgeConfig(Closed):
    """One edge box; its id is the Sparkplug edge node id."""

    id: Id
    name: Names | None = None
    buses: tuple[BusConfig, ...] = Field(default=(), max_length=256)
    devices: tuple[DeviceConfig, ...] = Field(default=(), max_length=2000)
    receipt: Literal["required", "none"] = Field(
        default="required", description="none: publish without a gateway (commissioning, foreign hosts)"
    )
    encoding: Literal["plain", "block"] = Field(default="plain", description="block: for a metered link")
    spool: SpoolConfig = Field(default_factory=SpoolConfig)
