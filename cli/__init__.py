"""The one command, `hazardgate`. A subcommand's packages load only when it is called: an edge box has no gateway."""

from cli.commands import main

__all__ = ["main"]
