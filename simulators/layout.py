"""Where things stand on a simulated site and what is normal there. Optional."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as PydanticField
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from simulators.errors import ScenarioError

YAML_BYTES_MAX = 256 * 1024
HERE = Path(__file__).parent
Model = TypeVar("Model", bound=BaseModel)


class Position(BaseModel):
    """A place, metres east and north of the site's corner."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    x_m: float
    y_m: float


class Detector(Position):
    """A gas detector: where it stands, which gas it sees and how fast it answers."""

    gas: str
    response_s: float = PydanticField(3.0, gt=0, description="time constant of the sensor; T90 is 2.3 of them")


class Layout(BaseModel):
    """A site's places and normal values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    sources: dict[str, Position] = PydanticField(default_factory=dict, description="equipment id to its place")
    detectors: dict[str, Detector] = PydanticField(default_factory=dict, description="tag id to the detector")
    nominal: dict[str, float] = PydanticField(default_factory=dict, description="tag id to its normal value")
    spread: dict[str, float] = PydanticField(
        default_factory=dict, description="tag id to how far it may wander from its normal value"
    )
    adc_bits: int = PydanticField(14, ge=8, le=24, description="resolution of the instruments' converters")


def load_layout(site: str) -> Layout:
    """Load the layout shipped for a site id, or an empty one.

    Raises:
        ScenarioError: the file is not a layout.
    """
    path = HERE / f"layout_{site.lower()}.yaml"
    return Layout() if not path.exists() else parse_model(Layout, path)


def parse_model(model: type[Model], path: Path) -> Model:
    """Read a YAML file into a closed model.

    Raises:
        ScenarioError: names the file, the places and what is wrong with each.
    """
    try:
        return model.model_validate(_load_yaml(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ScenarioError(f"{path}: {problems}") from error


def _load_yaml(path: Path) -> Any:
    try:
        octets = path.read_bytes()
        if len(octets) > YAML_BYTES_MAX:
            raise ScenarioError(f"{path}: larger than {YAML_BYTES_MAX} bytes")
        text = octets.decode("utf-8")
        yaml = YAML(typ="safe", pure=True)
        if any(isinstance(event, AliasEvent) for event in yaml.parse(text)):
            raise ScenarioError(f"{path}: write values out instead of using aliases (*name)")
        return yaml.load(text)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 text") from error
    except YAMLError as error:
        raise ScenarioError(f"{path}: {error}") from error
