"""Stretches that the chains of manifests miss inside: where something is away that was sealed or loaded. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.historian.segments.folder import Ancestor, Problem, Snapshot
from gateway.historian.segments.manifest import Manifest
from gateway.historian.segments.names import MANIFESTS, POS_MAX, Stem


def holes(taken: Snapshot, ledger_id: str, ancestry: Sequence[Ancestor], pruned: int) -> list[Problem]:
    """Return what the chain of a ledger misses behind `pruned`: a stretch without a manifest, or one that does not follow."""
    problems = []
    chain = taken.chain(ledger_id)
    before: Manifest | None = None
    for manifest in chain:
        stem = manifest.stem
        if before is not None and stem.first > before.stem.last + 1:
            if stem.first > pruned + 1:
                why = f"no manifest holds log positions {before.stem.last + 1} to {stem.first - 1}; restore it from a backup"
                problems.append(Problem(f"{MANIFESTS} before {stem.manifest_name}", "", 0, 0, why))
        elif before is not None and not manifest.follows(before):
            problems.append(Problem(stem.manifest_name, "", 0, 0, f"does not follow {before.stem.manifest_name}"))
        before = manifest
    if chain and chain[0].stem.first > max(taken.cursor("", ancestry), pruned) + 1:
        why = f"no manifest holds log positions {taken.cursor('', ancestry) + 1} to {chain[0].stem.first - 1}"
        problems.append(Problem(f"{MANIFESTS} before {chain[0].stem.manifest_name}", "", 0, 0, why))
    return problems


def holes_of_others(taken: Snapshot, ledger_id: str, ancestry: Sequence[Ancestor]) -> list[Problem]:
    """Return what the chains of loads and of other ledgers miss inside: a stretch without a manifest, readable or not.

    What the heirs of a ledger took over and sealed, or what `gone` tells, is left out, and what retention has removed.
    """
    taken_over, limit = {ledger_id: POS_MAX}, POS_MAX
    for each in ancestry:
        limit = taken_over[each.ledger_id] = min(limit, each.pos)
    held: dict[tuple[str, bool], list[Stem]] = {}
    for stem in sorted([*(manifest.stem for manifest in taken.manifests), *(stem for stem, _ in taken.unreadable)]):
        held.setdefault((stem.owner, stem.kind == "load"), []).append(stem)
    left = {live.stem.owner for live in taken.files()}
    problems = []
    for (owner, is_load), stems in held.items():
        at = 0 if is_load else max(stems[0].first, taken_over.get(owner, 0) + 1)
        for stem in stems:
            if stem.first > at and owner in left:
                parts = f"part {at}" if at == stem.first - 1 else f"parts {at} to {stem.first - 1}"
                what = f"{parts} of load {owner}" if is_load else f"log positions {at} to {stem.first - 1} of {owner}"
                why = f"no manifest holds {what}; restore the historian from a backup{', or import the file again' * is_load}"
                problems.append(Problem(f"{MANIFESTS} before {stem.manifest_name}", "", 0, 0, why))
            at = max(at, stem.last + 1)
    return problems
