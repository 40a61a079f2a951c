"""A running plant: time passes, the control port obeys, the logs tell, and it stops in order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from pymodbus.client import AsyncModbusTcpClient

from config import SiteConfig
from simulators import (
    CHANGES_FILE,
    REQUESTS_FILE,
    ScenarioError,
    SimulatedPlant,
    SimulationSettings,
    SimulatorError,
    SyntheticPlant,
    control_plant,
    count_functions,
    load_scenario,
    read_json_lines,
    run_simulation,
    synthetic_site,
    synthetic_tag,
)
from simulators.scenario import Scenario, SetStep, Text
from tests.simulators.small_site import FREE_PORTS, real_loop, small_site


def drill(*steps: SetStep) -> Scenario:
    return Scenario(version=1, name="drill", title=Text(zh="演练", en="Drill"), steps=steps)


JUMP = SetStep(do="set", at_s=0.0, tag="V1.PRESSURE", value=1.2)


def test_it_runs_logs_and_stops_on_demand(tmp_path: Path) -> None:
    async def scenario() -> None:
        stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        settings = SimulationSettings(directory=tmp_path, step_s=0.02, ports=FREE_PORTS)
        running = asyncio.create_task(run_simulation(small_site(), drill(JUMP), settings, stop, started), name="plant")
        plant = await started
        where = json.loads((tmp_path / "plant.json").read_text())
        client = AsyncModbusTcpClient(*where["addresses"]["E1/B2"][:1], port=where["addresses"]["E1/B2"][1])
        assert await client.connect()
        while plant.bank.changes == 0:
            await asyncio.sleep(0.01)
        assert not (await client.read_holding_registers(102, count=2, device_id=7)).isError()
        client.close()
        stop.set()
        summary = await running
        assert summary["requests"] == {"reads": 1, "writes": 0, "others": 0, "functions": {"3": 1}}
        assert count_functions(tmp_path / REQUESTS_FILE) == {3: 1}
        (change,) = read_json_lines(tmp_path / CHANGES_FILE)
        assert (change["tag"], change["limit"], change["over"]) == ("V1.PRESSURE", "H", True)
        assert change["value"] == pytest.approx(1.2, abs=1e-3)
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", where["control_port"])

    real_loop(scenario)


def test_a_held_scenario_begins_on_demand_and_the_control_port_obeys(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = SimulationSettings(directory=tmp_path, ports=FREE_PORTS, hold=True)
        async with SimulatedPlant(small_site(), drill(JUMP), settings) as plant:
            for _ in range(10):
                assert plant.step(0.5) == []
            assert (await control_plant(plant.control_port, {"do": "begin"}))["steps_left"] == 1
            assert [change.limit for change in plant.step(0.5)] == ["H"]
            await control_plant(plant.control_port, {"do": "sensor", "tag": "V1.PRESSURE", "fault": "nan"})
            await control_plant(plant.control_port, {"do": "instrument", "device": "GAS", "fault": "no_answer"})
            await control_plant(plant.control_port, {"do": "drop_connections"})
            assert (await control_plant(plant.control_port, {"do": "status"}))["steps_left"] == 0
            for wrong, says in (
                ({"do": "sensor", "tag": "V1.PRESURE", "fault": "nan"}, r"did you mean 'V1\.PRESSURE'"),
                ({"do": "instrument", "device": "GAS", "fault": "explode"}, "fault"),
                ({"do": "dance"}, "not a scenario step"),
            ):
                with pytest.raises(SimulatorError, match=says):
                    await control_plant(plant.control_port, wrong)
        steps = [line["do"] for line in read_json_lines(tmp_path / "steps.jsonl")]
        assert steps == ["set", "sensor", "instrument"]

    real_loop(scenario)


def test_a_control_line_that_is_not_json_is_answered_and_the_next_one_obeyed() -> None:
    async def scenario() -> None:
        async with SimulatedPlant(small_site(), drill(), SimulationSettings(ports=FREE_PORTS)) as plant:
            reader, writer = await asyncio.open_connection("127.0.0.1", plant.control_port)
            writer.write(b'nonsense\n[1]\n{"do":"status"}\n')
            answers = [json.loads(await reader.readline())["ok"] for _ in range(3)]
            assert answers == [False, False, True]
            writer.close()

    real_loop(scenario)


def test_a_scenario_that_does_not_fit_is_refused_before_anything_opens() -> None:
    with pytest.raises(ScenarioError, match="SMALL"):
        SimulatedPlant(small_site(), load_scenario("chlorine-leak"), SimulationSettings())


def test_the_synthetic_plant_steps_one_tag_and_says_when_it_was_read() -> None:
    async def scenario() -> None:
        site = SiteConfig.model_validate(synthetic_site(100, 4))
        ports = {("EDGE1", f"BUS{i}"): 0 for i in range(4)}
        async with SyntheticPlant(site, ports=ports) as plant:
            for _ in range(5):
                plant.wander()
            assert plant.bank.changes == 0
            tag = synthetic_tag(30)  # the sixth of the second device
            change = plant.step_over(tag)
            assert (change.tag, change.limit, change.over, change.value) == (tag, "H", True, 90.0)
            with pytest.raises(SimulatorError, match="already"):
                plant.step_over(tag)
            plant.wander()
            host, port = plant.bank.addresses["EDGE1/BUS1"]
            client = AsyncModbusTcpClient(host, port=port)
            await client.connect()
            registers = (await client.read_holding_registers(10, count=2, device_id=1)).registers
            assert client.convert_from_registers(registers, client.DATATYPE.FLOAT32) == 90.0
            client.close()
            assert await plant.read_ms(change) >= change.at_ms
            assert plant.step_back(tag).over is False
            with pytest.raises(SimulatorError, match="no tag"):
                plant.step_over("NO.TAG")

    real_loop(scenario)


@pytest.mark.parametrize(("tags", "devices", "stride"), [(2000, 20, 0), (7, 3, 5), (1, 1, 0)])
def test_a_synthetic_site_is_a_valid_site(tags: int, devices: int, stride: int) -> None:
    site = SiteConfig.model_validate(synthetic_site(tags, devices, stride=stride))
    assert len(site.tags) == tags
    assert len(site.edge("EDGE1").devices) == devices
    assert set(site.edge_of) == {tag.id for tag in site.tags}
