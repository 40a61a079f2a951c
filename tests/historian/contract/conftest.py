"""Leaves out, by name, what a store says of itself that it cannot keep: that is no skip for want of something."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        store = callspec.params.get("running") if callspec is not None else None
        parts = {str(mark.args[0]) for mark in item.iter_markers("part")}
        if parts and store is not None and not parts <= store.parts:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
