"""One edge's own file: what its box needs, and not a word about receivers or their secrets.

The file's hash travels in the edge's birth; the gateway compares it with the hash of its own export, so a box
that runs an old file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from config.edges import EdgeConfig, PointConfig
from config.model import Closed, Flag, Id, Number, TagId
from config.problems import ConfigError, ConfigErrors, ConfigProblem, did_you_mean
from config.site import BrokerConfig, SiteConfig, SiteId
from config.structure import Locator, structure_problems
from config.tags import RangeConfig
from config.yaml_text import dump_yaml
from config.yaml_tree import read_tree


class UnknownEdgeError(ConfigError):
    """The site has no edge of that id."""

    def __init__(self, site: SiteConfig, edge_id: str) -> None:
        self.edge_id = edge_id
        hint = did_you_mean(edge_id, [edge.id for edge in site.edges])
        valid = "、".join(edge.id for edge in site.edges)
        super().__init__(
            f"site {site.site} has no edge {edge_id!r}" + (f"; {hint}" if hint else ""),
            f"站点 {site.site} 没有采集终端 {edge_id!r}" + (f"；现有：{valid}" if valid else ""),
        )


class EdgeTag(Closed):
    """What an edge knows of a tag."""

    id: TagId
    unit: str | None = None
    range: RangeConfig
    discrete: Flag = False
    has_limit: Flag = Field(description="sent on every raw change")
    safety_critical: Flag = False
    longest_silence_s: Number = Field(gt=0)
    report_deadband: Number = Field(default=0.0, ge=0)


class EdgeFile(Closed):
    """The file on an edge box. Points of planned tags are left out: their instruments are still to come."""

    version: Literal[1] = 1
    site: SiteId = Field(description="also the Sparkplug group id")
    host_id: Id
    broker: BrokerConfig
    edge: EdgeConfig
    tags: tuple[EdgeTag, ...] = Field(default=(), description="those this edge reads, in the order of its points")

    @cached_property
    def tag_of(self) -> dict[str, EdgeTag]:
        """Tag id to what the edge knows of it."""
        return {tag.id: tag for tag in self.tags}

    @cached_property
    def points(self) -> tuple[tuple[int, PointConfig], ...]:
        """The flat point list in file order, each with the index of its device."""
        return tuple((index, point) for index, device in enumerate(self.edge.devices) for point in device.points)


def export_edge(site: SiteConfig, edge_id: str) -> EdgeFile:
    """Return the file of one edge. Raises UnknownEdgeError."""
    try:
        edge = site.edge(edge_id)
    except KeyError:
        raise UnknownEdgeError(site, edge_id) from None
    in_service = {tag.id: tag for tag in site.tags if not tag.planned}
    devices = tuple(
        device.model_copy(update={"points": tuple(p for p in device.points if p.tag in in_service)})
        for device in edge.devices
    )
    tags = [in_service[point.tag] for device in devices for point in device.points]
    return EdgeFile(
        site=site.site,
        host_id=site.host_id,
        broker=site.broker,
        edge=edge.model_copy(update={"devices": devices}),
        tags=tuple(
            EdgeTag(
                id=tag.id,
                unit=tag.unit,
                range=tag.span(),
                discrete=tag.discrete,
                has_limit=bool(tag.limit_rows()),
                safety_critical=tag.safety_critical,
                longest_silence_s=tag.longest_silence_s,
                report_deadband=tag.report_deadband,
            )
            for tag in tags
        ),
    )


def dump_edge(edge_file: EdgeFile) -> str:
    """Return the file as YAML text; `load_edge` of it gives an equal model."""
    return dump_yaml(edge_file.model_dump(mode="json", exclude_none=True))


def dump_site(site: SiteConfig) -> str:
    """Return the site as YAML text, without the comments of the file it came from."""
    return dump_yaml(site.model_dump(mode="json", exclude_none=True))


def load_edge(path: Path | str) -> EdgeFile:
    """Return the edge file at `path`. Raises ConfigErrors, all problems at once."""
    path = Path(path)
    root = read_tree(path)
    locator = Locator(str(path), root)
    try:
        edge_file = EdgeFile.model_validate(root.plain())
    except ValidationError as error:
        raise ConfigErrors(structure_problems(error, EdgeFile, locator)) from error
    problems = _contradictions(edge_file, locator)
    if problems:
        raise ConfigErrors(problems)
    return edge_file


def edge_hash(edge_file: EdgeFile) -> str:
    """Return the SHA-256 (hex) of the file's meaning: order of keys, comments and defaults do not matter."""
    canonical = json.dumps(
        edge_file.model_dump(mode="json"),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _contradictions(edge_file: EdgeFile, locator: Locator) -> list[ConfigProblem]:
    """What an export never holds but a hand-edited file may: points without tag, tags without point."""
    problems = []
    buses = {bus.id for bus in edge_file.edge.buses}
    read: set[str] = set()

    def problem(path: tuple[str | int, ...], message: str) -> None:
        line, column, place = locator.find(path)
        problems.append(
            ConfigProblem(
                locator.file,
                line,
                column,
                place,
                message,
                "do not edit an edge's file; export it again from the site",
            )
        )

    for number, device in enumerate(edge_file.edge.devices):
        if device.bus not in buses:
            problem(("edge", "devices", number, "bus"), f"there is no bus {device.bus!r}")
        for index, point in enumerate(device.points):
            path = ("edge", "devices", number, "points", index, "tag")
            if point.tag not in edge_file.tag_of:
                problem(path, f"there is no tag {point.tag!r}")
            if point.tag in read:
                problem(path, f"tag {point.tag} is already read by another point")
            read.add(point.tag)
    for index, tag in enumerate(edge_file.tags):
        if tag.id not in read:
            problem(("tags", index, "id"), f"no point reads tag {tag.id}")
    return problems
