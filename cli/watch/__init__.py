"""The terminal screen of a control room, a client of the gateway's API and of nothing else."""

from cli.watch.command import watch_command

__all__ = ["watch_command"]
