"""Serve: reads the ledger beside core and answers questions about it. It may die at any time; core never notices."""

from __future__ import annotations

__all__: list[str] = []
