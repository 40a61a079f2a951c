"""Three bugs that were never in the product, each breaking one promise: planted to see whether the world finds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from alerting.evaluator import Evaluator
from alerting.observed import Observed
from alerting.phases import ACTIVE, NORMAL, UNCERTAIN_FROM
from alerting.step import Step
from gateway.core.ledger import Batch, Committed, Ledger
from gateway.core.loop import CoreLoop


def ack_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Core acknowledges frames when it hands them to the writer, not when they are on the disk."""
    submit = CoreLoop._submit

    def hasty(loop: CoreLoop, batch: Batch, engine_ms: int, *, offered: bool = False) -> None:
        submit(loop, batch, engine_ms, offered=offered)
        loop.acks.update(batch.acks)
        loop.urgent_nodes |= batch.backlog_nodes
        loop.acks_wake.set()

    patch.setattr(CoreLoop, "_submit", hasty)


def bad_lowers(patch: pytest.MonkeyPatch) -> None:
    """A BAD sample, which is below every setpoint when compared carelessly, returns the levels of its tag."""
    samples = Evaluator.samples

    def careless(evaluator: Evaluator, engine_ms: int, observed: Observed) -> list[Step]:
        steps = samples(evaluator, engine_ms, observed)
        for tag, code, source_ms, frame in zip(
            observed.tag.tolist(), observed.code.tolist(), observed.source_ms.tolist(), observed.frame.tolist(), strict=True
        ):
            first, behind = evaluator.limits.row_start[tag : tag + 2].tolist()
            for row in range(first, behind):
                if code < UNCERTAIN_FROM and evaluator.phase[row] == ACTIVE:
                    evaluator.put(row, NORMAL)
                    key = observed.frames[frame]
                    steps.append(Step(row, tag, False, math.nan, code, source_ms, key.stream, key.sequence, 0))
        return steps

    patch.setattr(Evaluator, "samples", careless)


def outbox_on_its_own(patch: pytest.MonkeyPatch) -> None:
    """The ledger writes notices in a second transaction, behind the one that holds their transitions."""
    commit = Ledger.commit
    halves: dict[int, Committed] = {}

    def in_two(ledger: Ledger, batches: Sequence[Batch]) -> Committed:
        key = id(batches[0])
        if key not in halves:  # a second half that failed is tried again alone
            held = [batch.notices for batch in batches]
            try:
                for batch in batches:
                    batch.notices = []
                halves[key] = commit(ledger, batches)
            finally:
                for batch, notices in zip(batches, held, strict=True):
                    batch.notices = notices
        settled = halves[key]
        with ledger._db:
            rows = [
                ledger._write_notice(notice)
                for batch in batches
                for notice in batch.notices
                if notice.transition_id in settled.fresh_transitions
            ]
        del halves[key]
        return replace(settled, outbox=tuple(rows))

    patch.setattr(Ledger, "commit", in_two)
