"""One slate of two arms' slates."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE, Slates
from handsell.experiments.interleaving import Draft, draft_teams

BITS = 32  # of Slates.source and Slates.relaxed


def interleave(first: Slates, second: Slates, n: int, seed: int) -> tuple[Slates, np.ndarray]:
    """Interleave two slates of one request (B = 1) into one of n positions; also return the team of each (n,).

    The propensity of an item is that of its own slate, times the chance of the draft.
    """
    draft = draft_teams(first.item, second.item, n, np.array([seed], np.uint64))
    both = (first, second)
    sources, constraints = (tuple(dict.fromkeys([*a, *b])) for a, b in _names(first, second))
    relaxed = None
    if first.relaxed is not None or second.relaxed is not None:
        columns = [
            map_bits(np.zeros_like(s.source) if s.relaxed is None else s.relaxed, s.constraints, constraints)
            for s in both
        ]
        relaxed = _pick(draft, 0, columns[0], columns[1])
    slates = Slates(
        item=draft.item.astype(np.int32),
        score=_pick(draft, 0, first.score, second.score),
        source=_pick(draft, 0, *(map_bits(s.source, s.sources, sources) for s in both)),
        reason=_pick(draft, 0, first.reason, second.reason),
        reason_item=_pick(draft, NONE, first.reason_item, second.reason_item),
        propensity=(_pick(draft, 1, first.propensity, second.propensity) * draft.chance).astype(np.float32),
        sources=sources,
        relaxed=relaxed,
        constraints=constraints[:BITS],
        degraded=tuple(dict.fromkeys([*first.degraded, *second.degraded])),
        rules=first.rules,
    )
    return slates, draft.team[0]


def _names(first: Slates, second: Slates) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    return (first.sources, second.sources), (first.constraints, second.constraints)


def _pick(draft: Draft, empty: float, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Take (1, n) values of the drafted positions from the slates that they come from."""
    values = [np.concatenate([v, np.full((1, 1), empty, v.dtype)], axis=1) for v in (first, second)]
    a, b = (np.take_along_axis(v, np.where(draft.column < v.shape[1] - 1, draft.column, -1), 1) for v in values)
    return np.where(draft.column == NONE, np.asarray(empty, first.dtype), np.where(draft.ranking == 0, a, b))


def map_bits(bits: np.ndarray, before: tuple[str, ...], after: tuple[str, ...]) -> np.ndarray:
    """Return bit masks over the names `before` as masks over the names `after`."""
    if before == after[: len(before)]:
        return bits
    out = np.zeros_like(bits)
    for bit, name in enumerate(before):
        if (place := after.index(name)) < BITS:
            out |= ((bits >> np.uint32(bit)) & np.uint32(1)) << np.uint32(place)
    return out
