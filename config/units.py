"""Which quantities can be monitored, and in which units. Units are plain GBK-safe text, one spelling each."""

from __future__ import annotations

from enum import StrEnum


class Quantity(StrEnum):
    """What a tag measures. The discrete ones are 0 or 1 and have no unit."""

    TEMPERATURE = "temperature"
    PRESSURE = "pressure"
    DIFFERENTIAL_PRESSURE = "differential_pressure"
    LEVEL = "level"
    FLOW = "flow"
    MASS = "mass"
    TOXIC_GAS = "toxic_gas"
    COMBUSTIBLE_GAS = "combustible_gas"
    OXYGEN = "oxygen"
    HUMIDITY = "humidity"
    WIND_SPEED = "wind_speed"
    WIND_DIRECTION = "wind_direction"
    VALVE_POSITION = "valve_position"
    CURRENT = "current"
    RESIDUAL_CURRENT = "residual_current"
    VOLTAGE = "voltage"
    FREQUENCY = "frequency"
    SPEED = "speed"
    VIBRATION = "vibration"
    FORCE = "force"
    DISPLACEMENT = "displacement"
    TILT = "tilt"
    CONCENTRATION = "concentration"
    COUNT = "count"
    VALVE_STATE = "valve_state"
    PUMP_STATE = "pump_state"
    FAN_STATE = "fan_state"
    CONTACT = "contact"
    FLAME = "flame"
    SMOKE = "smoke"
    SUPPLY_STATE = "supply_state"
    DOOR_STATE = "door_state"


_LENGTH = ("mm", "cm", "m")
_PRESSURE = ("Pa", "kPa", "MPa", "mbar", "bar")

UNITS_OF: dict[Quantity, tuple[str, ...]] = {
    Quantity.TEMPERATURE: ("°C", "K"),
    Quantity.PRESSURE: _PRESSURE,
    Quantity.DIFFERENTIAL_PRESSURE: _PRESSURE,
    Quantity.LEVEL: (*_LENGTH, "%"),
    Quantity.FLOW: ("m3/h", "m3/min", "m3/s", "Nm3/h", "L/min", "L/s", "kg/h", "kg/s", "t/h"),
    Quantity.MASS: ("kg", "t"),
    Quantity.TOXIC_GAS: ("mg/m3", "ug/m3", "ppm", "ppb", "%VOL", "%OEL"),
    Quantity.COMBUSTIBLE_GAS: ("%LEL", "LEL.m", "%VOL", "ppm"),
    Quantity.OXYGEN: ("%VOL",),
    Quantity.HUMIDITY: ("%RH",),
    Quantity.WIND_SPEED: ("m/s",),
    Quantity.WIND_DIRECTION: ("deg",),
    Quantity.VALVE_POSITION: ("%",),
    Quantity.CURRENT: ("mA", "A"),
    Quantity.RESIDUAL_CURRENT: ("mA", "A"),
    Quantity.VOLTAGE: ("mV", "V", "kV"),
    Quantity.FREQUENCY: ("Hz",),
    Quantity.SPEED: ("r/min", "m/s"),
    Quantity.VIBRATION: ("mm/s", "um", "m/s2"),
    Quantity.FORCE: ("N", "kN"),
    Quantity.DISPLACEMENT: _LENGTH,
    Quantity.TILT: ("deg", "mm/m"),
    Quantity.CONCENTRATION: ("%", "mg/L", "g/L", "kg/m3"),
    Quantity.COUNT: ("1",),
    Quantity.VALVE_STATE: (),
    Quantity.PUMP_STATE: (),
    Quantity.FAN_STATE: (),
    Quantity.CONTACT: (),
    Quantity.FLAME: (),
    Quantity.SMOKE: (),
    Quantity.SUPPLY_STATE: (),
    Quantity.DOOR_STATE: (),
}
UNITS: tuple[str, ...] = tuple(sorted({unit for units in UNITS_OF.values() for unit in units}))

# Spellings people type, and the one we keep. They are refused with this as the hint, never guessed.
UNIT_SPELLINGS: dict[str, str] = {
    "℃": "°C", "C": "°C", "degC": "°C", "摄氏度": "°C",
    "m³/h": "m3/h", "m^3/h": "m3/h", "Nm³/h": "Nm3/h",
    "mg/m³": "mg/m3", "mg/m^3": "mg/m3", "μg/m³": "ug/m3", "µg/m3": "ug/m3",
    "LEL": "%LEL", "%lel": "%LEL", "VOL": "%VOL", "vol%": "%VOL", "RH": "%RH", "°": "deg", "度": "deg",
    "Mpa": "MPa", "MPA": "MPa", "mpa": "MPa", "Kpa": "kPa", "KPa": "kPa", "KPA": "kPa", "rpm": "r/min",
    "吨": "t", "米": "m",
}  # fmt: skip


def is_discrete(quantity: Quantity) -> bool:
    """Whether the quantity is a state (0 or 1) rather than a number with a unit."""
    return not UNITS_OF[quantity]
