"""Runs a command of `hazardgate` in the tests' own process, and takes its logging away with it."""

from __future__ import annotations

import logging

from typer.testing import CliRunner, Result

from cli.commands import app


def run(*arguments: object) -> Result:
    """Run a command. Its log goes to the runner's stderr, which is closed after it: nobody may log there any more."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
