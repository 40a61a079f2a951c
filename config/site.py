"""The whole site as one document: region, hazard sources, tags, receivers, edges, broker, storage."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from config.edges import EdgeConfig
from config.model import Closed, ExplainedError, Grade, GradeWord, Host, Id, Names, Number, PlaceId, Port, Whole
from config.receivers import EnvName, ReceiverConfig
from config.storage import StorageConfig
from config.tags import TagConfig

SiteId = Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9_-]{1,31}$")]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
ConditionKind = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", max_length=64)]


class Place(Closed):
    """One level of the region path."""

    code: Code = Field(description="administrative or enterprise code, in quotes")
    name: Names


class RegionPath(Closed):
    """City, county, park or town, enterprise."""

    city: Place
    county: Place
    park: Place
    enterprise: Place

    @property
    def path(self) -> str:
        """The four codes joined by '/'."""
        return "/".join(place.code for place in (self.city, self.county, self.park, self.enterprise))


class EquipmentConfig(Closed):
    """A tank, a compressor, a room: what tags belong to."""

    id: PlaceId
    name: Names
    kind: Literal[
        "tank", "sphere", "cylinder", "vessel", "column", "reactor", "heat_exchanger", "compressor", "pump",
        "fan", "pipeline", "valve_group", "loading_arm", "room", "gas_detection", "weather_station",
        "power", "other",
    ]  # fmt: skip


class HazardSourceConfig(Closed):
    """A production or storage unit of GB 18218-2018."""

    id: PlaceId
    name: Names
    kind: Literal["production", "storage"]
    grade: Literal[1, 2, 3, 4] | None = Field(default=None, description="grade by GB 18218-2018, 1 is the gravest")
    s_value: Number | None = Field(default=None, ge=0, description="S, sum of q/Q from design quantities")
    r_value: Number | None = Field(default=None, ge=0, description="R")
    equipment: tuple[EquipmentConfig, ...] = Field(default=(), max_length=5000)


class BrokerTls(Closed):
    """TLS towards the broker."""

    ca_file: str = Field(min_length=1)
    cert_file: str | None = Field(default=None, min_length=1)
    key_file: str | None = Field(default=None, min_length=1)


class BrokerConfig(Closed):
    """The MQTT 3.1.1 broker."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    username: str | None = Field(default=None, min_length=1)
    password_file: str | None = Field(default=None, min_length=1)
    password_env: EnvName | None = None
    tls: BrokerTls | None = None
    keepalive_s: Whole = Field(default=15, ge=5, le=600)


class SystemAlarmsConfig(Closed):
    """Grades of alarms about the chain itself, by the last word of the condition: OFFLINE, DOWN, ..."""

    default_grade: GradeWord = Grade.YELLOW
    grades: dict[ConditionKind, GradeWord] = Field(
        default_factory=lambda: {"OFFLINE": Grade.ORANGE, "DOWN": Grade.ORANGE}, max_length=100
    )

    def grade_of(self, condition: str) -> Grade:
        """Return the grade of a condition key such as EDGE.E1.OFFLINE."""
        return self.grades.get(condition.rsplit(".", 1)[-1], self.default_grade)


class SiteConfig(Closed):
    """Everything people decide about one site."""

    version: Literal[1]
    site: SiteId = Field(description="also the Sparkplug group id")
    name: Names
    timezone: str = "Asia/Shanghai"
    region: RegionPath
    host_id: Id = Field(default="HAZARDGATE", description="Sparkplug host id of the gateway")
    reorder_timeout_s: Number = Field(
        default=2.0, ge=0.1, le=60, description="how long a missing Sparkplug message is waited for before a rebirth is asked for"
    )
    hazard_sources: tuple[HazardSourceConfig, ...] = Field(default=(), max_length=1000)
    tags: tuple[TagConfig, ...] = Field(default=(), max_length=100_000)
    receivers: tuple[ReceiverConfig, ...] = Field(default=(), max_length=64)
    edges: tuple[EdgeConfig, ...] = Field(default=(), max_length=2000)
    broker: BrokerConfig = Field(default_factory=BrokerConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    system_alarms: SystemAlarmsConfig = Field(default_factory=SystemAlarmsConfig)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ExplainedError(
                f"{name!r} is not a time zone; in China write Asia/Shanghai", f"没有时区 {name!r}；中国写 Asia/Shanghai"
            ) from error
        return name

    @cached_property
    def tag_index(self) -> dict[str, int]:
        """Tag id to its position in `tags`."""
        return {tag.id: index for index, tag in enumerate(self.tags)}

    @cached_property
    def hazard_source_of(self) -> dict[str, str]:
        """Equipment id to the id of its hazard source."""
        return {item.id: source.id for source in self.hazard_sources for item in source.equipment}

    @cached_property
    def edge_of(self) -> dict[str, str]:
        """Tag id to the id of the edge that reads it; planned tags that nobody reads are absent."""
        return {point.tag: edge.id for edge in self.edges for device in edge.devices for point in device.points}

    @cached_property
    def silence_s(self) -> dict[str, float]:
        """Tag id to the seconds after which its next sample must have been taken, if it is read at all.

        That is its longest silence, and what a busy device may add: two polls and one request without an answer. Samples
        further apart than that are missing, though the tag may not be stale yet, which bears a lost frame and more.
        """
        slack_s = {
            point.tag: 2 * device.period_s + device.timeout_s
            for edge in self.edges for device in edge.devices for point in device.points
        }  # fmt: skip
        return {
            tag.id: min(tag.stale_after_s, tag.longest_silence_s + slack_s.get(tag.id, tag.stale_after_s)) for tag in self.tags
        }

    def edge(self, edge_id: str) -> EdgeConfig:
        """Return one edge; raises KeyError when the site has none of that id."""
        for edge in self.edges:
            if edge.id == edge_id:
                return edge
        raise KeyError(edge_id)

    def receiver(self, receiver_id: str) -> ReceiverConfig:
        """Return one receiver; raises KeyError when the site has none of that id."""
        for receiver in self.receivers:
            if receiver.id == receiver_id:
                return receiver
        raise KeyError(receiver_id)
