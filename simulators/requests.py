"""Every function code that reaches a simulated instrument: counted, and kept as JSON lines.

The proof that the gateway cannot write: a request is judged from its raw bytes, before any Modbus library
sees it, so a malformed write request counts as one, too.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulators.jsonlines import JsonLines, read_json_lines

TALLY: Final = "HAZARDGATE_REQUEST_TALLY"
"""Environment variable: a file to which every log of every process adds `code count` lines, for a whole run's proof."""
READ_CODES = frozenset({1, 2, 3, 4})
WRITE_CODES = frozenset({5, 6, 15, 16, 21, 22, 23})


def kind_of(function: int) -> str:
    """Return "read" for 1-4, "write" for codes that change a device, "other" for all else."""
    if function in READ_CODES:
        return "read"
    return "write" if function in WRITE_CODES else "other"


@dataclass(slots=True)
class RequestLog:
    """Counts requests by function code and writes one JSON line for each.

    A line: `{"at_ms", "server", "unit", "function", "kind", "address", "count"}`; address and count are null
    when the request is too short to hold them.
    """

    file: JsonLines | None = None
    functions: Counter[int] = field(default_factory=Counter)
    tally: str | None = field(default_factory=lambda: os.environ.get(TALLY))
    _tallied: Counter[int] = field(default_factory=Counter)

    def take(self, server: str, unit: int, function: int, body: bytes) -> None:
        """Record one request; `body` is what follows the function code."""
        self.functions[function] += 1
        if kind_of(function) != "read":
            self.add_to_tally()
        if self.file is None:
            return
        kind = kind_of(function)
        address = int.from_bytes(body[0:2], "big") if len(body) >= 2 else None
        count = int.from_bytes(body[2:4], "big") if len(body) >= 4 else None
        self.file.write(
            {
                "at_ms": time.time() * 1000,
                "server": server,
                "unit": unit,
                "function": function,
                "kind": kind,
                "address": address,
                "count": count,
            },
            flush=kind != "read",
        )

    def add_to_tally(self) -> None:
        """Add what was counted since the last call to the run's tally, if the environment names one."""
        if self.tally is None:
            return
        fresh = self.functions - self._tallied
        self._tallied = self.functions.copy()
        lines = "".join(f"{code} {count}\n" for code, count in fresh.items())
        with Path(self.tally).open("a", encoding="ascii") as file:  # short appends do not mix
            file.write(lines)

    @property
    def writes(self) -> int:
        """Requests so far whose function code changes a device. Must stay 0."""
        return sum(n for function, n in self.functions.items() if kind_of(function) == "write")

    @property
    def others(self) -> int:
        """Requests so far that are neither a read (1-4) nor a known write."""
        return sum(n for function, n in self.functions.items() if kind_of(function) == "other")

    def summary(self) -> dict[str, Any]:
        """Counts for status files: reads, writes, others, and each function code."""
        functions = {str(code): n for code, n in sorted(self.functions.items())}
        return {
            "reads": sum(self.functions[code] for code in READ_CODES),
            "writes": self.writes,
            "others": self.others,
            "functions": functions,
        }


def count_functions(path: Path) -> Counter[int]:
    """Count the function codes of a request log on disk, also while it is being written."""
    return Counter(record["function"] for record in read_json_lines(path) if "function" in record)
