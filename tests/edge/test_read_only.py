"""P4: nothing on the field side can form a write request. Read from the source and from what it sends."""

from __future__ import annotations

import ast
from pathlib import Path

import edge
from edge import modbus
from edge.modbus import FUNCTION_OF_TABLE, ReadFunction

SOURCES = sorted(Path(edge.__file__).parent.rglob("*.py"))
WRITE_WORDS = (
    "write_coil", "write_single", "write_multiple", "write_register", "write_file_record", "mask_write",
    "read_write_multiple", "readwrite", "preset_single", "force_single",
)  # fmt: skip


def test_the_function_codes_are_the_four_reads_and_no_more():
    assert {code.value for code in ReadFunction} == {1, 2, 3, 4}
    assert set(FUNCTION_OF_TABLE.values()) == set(ReadFunction)


def test_only_one_place_packs_a_request_and_its_function_is_a_read_function():
    """The request layout is used once, and the function code in it can only come out of the enum."""
    packs = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_REQUEST":
                packs.append((path.name, node.attr))
    assert packs == [("modbus.py", "pack")]
    tree = ast.parse(Path(modbus.__file__).read_text(encoding="utf-8"))
    [call] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_REQUEST.pack"
    ]
    assert ast.unparse(call.args[4]) == "read.function.value"


def test_bytes_reach_the_instrument_socket_in_one_place_only():
    """The one `transport.write` of the field side takes what the core packed."""
    writes = []
    for name in ("bus.py", "poll.py", "field.py", "modbus.py", "reads.py", "gather.py"):
        path = Path(edge.__file__).parent / name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in (
                "write", "writelines", "send", "sendall", "sendto", "sock_sendall",
            ):  # fmt: skip
                writes.append((name, ast.unparse(node)))
    assert writes == [
        ("bus.py", "self._transport.write(self.core.request(request, match_transaction=match_transaction))")
    ]


def test_no_source_imports_a_modbus_library_or_names_a_write_function():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if "modbus" in name and not name.startswith("edge.")], path
        lowered = text.lower()
        assert not [word for word in WRITE_WORDS if word in lowered], path
