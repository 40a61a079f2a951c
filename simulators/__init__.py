"""A simulated world: a plant behind real Modbus TCP instruments, scenarios, and a municipal platform.

For demos, drills, tests and benchmarks. Nothing that ships to a plant imports this package.
"""

from simulators.app import SimulatedPlant, SimulationSettings, run_simulation
from simulators.bank import CHANGES_FILE, READS_FILE, REQUESTS_FILE, InstrumentBank
from simulators.changes import Change
from simulators.control import control_plant
from simulators.errors import (
    ControlRefusedError,
    NotLoopbackError,
    PortTakenError,
    RegisterMapError,
    ScenarioError,
    SimulatorError,
)
from simulators.faulty import CLOSE, Chunk, CloseConnection, FaultyServer, reading
from simulators.field import Field, Listener, field_of
from simulators.instrument_faults import FaultKind, InstrumentFault
from simulators.jsonlines import read_json_lines
from simulators.layout import Layout, load_layout
from simulators.plant import Plant
from simulators.platform import Control, Failure, PlatformSettings, run_platform
from simulators.requests import READ_CODES, TALLY, WRITE_CODES, count_functions
from simulators.scenario import Scenario, load_scenario, scenario_names
from simulators.synthetic import SyntheticPlant, synthetic_site, synthetic_tag

__all__ = [
    "CHANGES_FILE",
    "CLOSE",
    "READS_FILE",
    "READ_CODES",
    "REQUESTS_FILE",
    "TALLY",
    "WRITE_CODES",
    "Change",
    "Chunk",
    "CloseConnection",
    "Control",
    "ControlRefusedError",
    "Failure",
    "FaultKind",
    "FaultyServer",
    "Field",
    "InstrumentBank",
    "InstrumentFault",
    "Layout",
    "Listener",
    "NotLoopbackError",
    "Plant",
    "PlatformSettings",
    "PortTakenError",
    "RegisterMapError",
    "Scenario",
    "ScenarioError",
    "SimulatedPlant",
    "SimulationSettings",
    "SimulatorError",
    "SyntheticPlant",
    "control_plant",
    "count_functions",
    "field_of",
    "load_layout",
    "load_scenario",
    "read_json_lines",
    "reading",
    "run_platform",
    "run_simulation",
    "scenario_names",
    "synthetic_site",
    "synthetic_tag",
]
