"""What every long-running subcommand shares: stop on SIGTERM or Ctrl-C, logs on stderr, errors as one sentence."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from cli.language import language, say
from cli.log_queue import FileDescriptorHandler, LogQueue

EXIT_REFUSED: Final = 2  # bad input or a place that cannot be used: nothing was started
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
CONTINUED: Final = "  | "


def escaped(text: str) -> str:
    """Return `text` with everything escaped that could end a line or steer a terminal."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class OneLineFormatter(logging.Formatter):
    """One record, one line. A stack follows on lines that are marked and hold no control character.

    So nothing that a message or an exception quotes from outside can forge another record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format the record."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [escaped(self.formatMessage(record))]
        if record.exc_info:
            lines += [CONTINUED + escaped(line) for line in self.formatException(record.exc_info).splitlines()]
        if record.stack_info:
            lines += [CONTINUED + escaped(line) for line in self.formatStack(record.stack_info).splitlines()]
        return "\n".join(lines)


def set_up_logging(*, verbose: bool = False) -> None:
    """Log to stderr, without ever waiting for it; what is left is written when the process ends."""
    handler = LogQueue(OneLineFormatter(LOG_FORMAT), _stderr_handler())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    logging.getLogger("aiomqtt").setLevel(logging.ERROR)


def _stderr_handler() -> logging.Handler:
    try:
        return FileDescriptorHandler(sys.stderr.fileno())
    except (OSError, ValueError):  # put in the place of stderr by who runs us: it has no descriptor
        return logging.StreamHandler(sys.stderr)


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


def flush_log() -> None:
    """Let the log reach stderr before something else is written there."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def explain(error: BaseException | str) -> str:
    """Return what to tell the user: in their language, and without anything that steers the terminal."""
    if isinstance(error, str):
        told = error
    elif hasattr(error, "describe"):  # of config: it speaks both languages
        told = error.describe(language())
    elif language() == "zh":
        from cli.errors_zh import sentence

        told = sentence(error)
    else:
        told = str(error)
    return "\n".join(map(escaped, told.split("\n")))


def refuse(error: BaseException | str) -> SystemExit:
    """Print why nothing was started; raise what this returns."""
    flush_log()
    print(explain(error), file=sys.stderr)
    return SystemExit(EXIT_REFUSED)


def unusable(path: Path, error: OSError) -> str:
    """Return the sentence for a file or folder that the system refuses."""
    where, cause = error.filename or path, error.strerror or error
    return say(
        f"{where}：无法使用（{cause}）；请检查路径、权限和剩余空间，或换一个路径",
        f"{where}: cannot be used ({cause}); check the path, the permissions and the space left, or give another path",
    )


def program_version() -> str:
    """Return the installed version, "0" in a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hazardgate")
    except PackageNotFoundError:
        return "0"
