"""Errors of the simulated world. Each says what to do next; none is ever swallowed by the simulators."""

from __future__ import annotations

from collections.abc import Iterable


class SimulatorError(Exception):
    """Base of everything the simulators raise on purpose."""


class NotLoopbackError(SimulatorError):
    """A simulated server was told to listen where a real network could reach it."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(f"simulators listen on loopback only, not on {host!r}; use 127.0.0.1 or ::1")


class PortTakenError(SimulatorError):
    """A simulated server could not open its port."""

    def __init__(self, what: str, host: str, port: int) -> None:
        self.what, self.host, self.port = what, host, port
        super().__init__(
            f"{what}: cannot listen on {host}:{port}; end the program that holds the port, "
            "or give another one (0 picks a free one)"
        )


class RegisterMapError(SimulatorError):
    """The points of a device do not fit into one register map."""


class ScenarioError(SimulatorError):
    """A scenario cannot be read, or names something that this site does not have."""


class UnknownScenarioError(ScenarioError):
    """No scenario has this name, and no file stands there."""

    def __init__(self, name: str, hint: str, known: Iterable[str]) -> None:
        self.name, self.known = name, ", ".join(known)
        super().__init__(f"no scenario {name!r}{hint}; there are: {self.known}")


class ControlRefusedError(SimulatorError):
    """A control request names an unknown device, tag or fault, or lacks a value."""
