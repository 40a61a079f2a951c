"""What every long-running subcommand shares: stop on SIGTERM or Ctrl-C, logs on stderr, errors as one sentence."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

EXIT_REFUSED: Final = 2  # bad input or a place that cannot be used: nothing was started
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


class OneLineFormatter(logging.Formatter):
    """One record, one line, a stack indented under it: what comes from outside cannot forge another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record's own line with control and line-separating characters escaped."""
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Format the stack; the error it ends with may quote anything."""
        return "\n".join(f"    {_printable(line)}" for line in super().formatException(ei).split("\n"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def set_up_logging(*, verbose: bool = False) -> None:
    """Log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("aiomqtt").setLevel(logging.ERROR)


def run_until_stopped(service: Callable[[asyncio.Event], Awaitable[Any]]) -> Any:
    """Run a service until SIGTERM or Ctrl-C sets its stop event; returns what it returns."""

    async def main() -> Any:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await service(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def refuse(message: str) -> SystemExit:
    """Print why nothing was started; raise what this returns."""
    print(message, file=sys.stderr)
    return SystemExit(EXIT_REFUSED)
