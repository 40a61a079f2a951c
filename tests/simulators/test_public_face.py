"""What other packages may use is a decision, not an accident."""

from __future__ import annotations

import simulators


def test_the_public_face_is_this_and_nothing_else() -> None:
    assert set(simulators.__all__) == {
        "CHANGES_FILE", "CLOSE", "READS_FILE", "READ_CODES", "REQUESTS_FILE", "WRITE_CODES", "Change", "Chunk",
        "CloseConnection", "Control", "ControlRefusedError", "Failure", "FaultKind", "FaultyServer", "Field",
        "InstrumentBank", "InstrumentFault", "Layout", "Listener", "NotLoopbackError", "Plant",
        "PlatformSettings", "PortTakenError", "RegisterMapError", "Scenario", "ScenarioError", "SimulatedPlant",
        "SimulationSettings", "SimulatorError", "SyntheticPlant", "TALLY", "control_plant", "count_functions", "field_of",
        "load_layout", "load_scenario", "read_json_lines", "reading", "run_platform", "run_simulation",
        "scenario_names", "synthetic_site", "synthetic_tag",
    }  # fmt: skip
    assert all(hasattr(simulators, name) for name in simulators.__all__)
