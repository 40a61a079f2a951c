"""JSON that readers disagree on, or that costs more than it says, is refused at once."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import cpu_s
from wire import JsonRefusedError, parse_json, parse_json_object

BYTES_MAX = 1_000_000
REFUSED_S_MAX = 0.05

HOSTILE = [
    pytest.param(b"[" * 100_000, id="depth 100 k, never closed"),
    pytest.param(b"[" * 100_000 + b"]" * 100_000, id="depth 100 k"),
    pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="objects 100 k deep"),
    pytest.param(b"[" * 9 + b"]" * 9, id="one level too deep"),
    pytest.param(b'{"a":1,"a":2}', id="a key twice"),
    pytest.param(b'{"x":{"a":1,"\\u0061":2}}', id="a key twice, once escaped"),
    pytest.param(b"[NaN]", id="NaN"),
    pytest.param(b'{"a":-Infinity}', id="-Infinity"),
    pytest.param(b"1e400", id="1e400"),
    pytest.param(b"-1e400", id="-1e400"),
    pytest.param(b"1" + b"0" * 199, id="200 digits"),
    pytest.param(b"-" + b"9" * 21, id="21 digits"),
    pytest.param(b"1" * 100_000, id="100 000 digits"),
    pytest.param(b'"\\ud800"', id="a lone surrogate"),
    pytest.param(b'{"\\udfff":1}', id="a lone surrogate as a key"),
    pytest.param(b"\xff", id="not UTF-8"),
    pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
    pytest.param(b"\xed\xa0\x80", id="a surrogate in UTF-8"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"{} {}", id="two values"),
    pytest.param(b"{'a':1}", id="single quotes"),
    pytest.param(b'"a\x00b"', id="a raw control character"),
    pytest.param(b" " * (BYTES_MAX + 1), id="longer than allowed"),
]


@pytest.mark.fault("F54")
@pytest.mark.parametrize("raw", HOSTILE)
def test_hostile_json_is_refused_at_once(raw: bytes) -> None:
    with pytest.raises(JsonRefusedError) as refused:
        parse_json(raw, BYTES_MAX)

    def again() -> None:
        with contextlib.suppress(JsonRefusedError):
            parse_json(raw, BYTES_MAX)

    assert cpu_s(again) < REFUSED_S_MAX
    assert len(str(refused.value)) < 80, "it quotes nothing of what came"
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("raw", [b"[" * 8 + b"]" * 8, b'{"a":18446744073709551615,"b":-1.5e300,"c":"\\ud83d\\ude00"}', b'" "', b"0"])
def test_what_is_within_bounds_is_read(raw: bytes) -> None:
    assert parse_json(raw, BYTES_MAX) == json.loads(raw)


def test_an_object_is_asked_for_by_name() -> None:
    assert parse_json_object(b'{"a":[1]}', 100) == {"a": [1]}
    with pytest.raises(JsonRefusedError, match="not a JSON object"):
        parse_json_object(b"[1]", 100)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_what_we_write_we_read(value: object) -> None:
    assert parse_json(json.dumps(value, allow_nan=False).encode(), BYTES_MAX, depth_max=64) == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789eE+-.\\udNaIfty', max_size=60).map(str.encode))
def test_any_bytes_give_a_plain_value_or_a_refusal(raw: bytes) -> None:
    try:
        value = parse_json(raw, 100)
    except JsonRefusedError:
        return
    json.dumps(value, allow_nan=False).encode()
    assert not (isinstance(value, float) and math.isnan(value))
