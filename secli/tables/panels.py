"""Which taps of which networks, and of their controls, share a panel of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secli.records.schema import EquivarianceRecord
from secli.tables.places import tap_names, whole


@dataclass(frozen=True)
class Panel:
    """One panel: its title, and for each record the tap drawn there (None: it has none to compare)."""

    title: str
    taps: tuple[str | None, ...]


def tap_panels(records: Sequence[EquivarianceRecord]) -> list[Panel]:
    """Return the panels of a figure, from input to output.

    Networks that name their taps alike share the panel of each name. Where most names differ, taps are put side
    by side by relative depth (first with first, last with last) and the title says which taps meet there.
    """
    chains = [_taps(record) for record in records]
    names = _merged(chains)
    if _mostly_shared(chains):
        return [Panel(name, tuple(name if name in chain else None for chain in chains)) for name in names]
    depth = max(len(chain) for chain in chains)
    columns = [_spread(chain, depth) for chain in chains]
    panels = []
    for position in range(depth):
        taps = tuple(column[position] for column in columns)
        distinct = list(dict.fromkeys(tap for tap in taps if tap is not None))
        panels.append(Panel(f"depth {position + 1} of {depth}: {' | '.join(distinct)}", taps))
    return panels


def control_taps(record: EquivarianceRecord, control: EquivarianceRecord) -> dict[str, str]:
    """Return which tap of a control stands beside which tap of its network.

    Taps of one name belong together. A control that shares no name stands beside every tap with a plane when it has
    a single one itself (the identity, a pointwise layer), and by relative depth otherwise; vectors and logits, which
    do not move with scale, then stay without.
    """
    own, other = _taps(record), _taps(control)
    shared = {tap: tap for tap in own if tap in other}
    if shared:
        return shared
    own, other = _moving(record, own), _moving(control, other)
    if len(other) == 1:
        return dict.fromkeys(own, other[0])
    if not other:
        return {}
    return {tap: other[round(i * (len(other) - 1) / max(len(own) - 1, 1))] for i, tap in enumerate(own)}


def _taps(record: EquivarianceRecord) -> list[str]:
    return tap_names(whole(record.rows))


def _moving(record: EquivarianceRecord, taps: Sequence[str]) -> list[str]:
    still = {row.tap for row in record.rows if row.field.lower().startswith("invariant")}
    return [tap for tap in taps if tap not in still]


def _mostly_shared(chains: Sequence[Sequence[str]]) -> bool:
    """Whether every network shares at least half of its tap names with some other network (or there is only one)."""
    if len(chains) == 1:
        return True
    return all(
        2 * max(len(set(chain) & set(other)) for j, other in enumerate(chains) if j != i) >= len(chain)
        for i, chain in enumerate(chains)
    )


def _merged(chains: Sequence[Sequence[str]]) -> list[str]:
    """Return all names so that each chain keeps its order; what that leaves open is settled by mean relative depth."""
    depths: dict[str, list[float]] = {}
    before: dict[str, set[str]] = {}
    for chain in chains:
        for index, name in enumerate(chain):
            depths.setdefault(name, []).append(index / max(len(chain) - 1, 1))
            before.setdefault(name, set()).update(chain[:index])
    merged: list[str] = []
    left = sorted(depths, key=lambda name: sum(depths[name]) / len(depths[name]))
    while left:
        # chains that contradict each other leave no name free: then the shallowest goes first
        name = next((name for name in left if before[name] <= set(merged)), left[0])
        merged.append(name)
        left.remove(name)
    return merged


def _spread(chain: Sequence[str], depth: int) -> list[str | None]:
    """Spread a chain over ``depth`` places, first to first and last to last, in order."""
    spread: list[str | None] = [None] * depth
    for index, name in enumerate(chain):
        spread[round(index * (depth - 1) / max(len(chain) - 1, 1))] = name
    return spread
