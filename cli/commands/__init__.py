"""The subcommands, one file a family: they parse what was typed, load what they need, and hand over."""

from cli.commands.top import app, main

__all__ = ["app", "main"]
