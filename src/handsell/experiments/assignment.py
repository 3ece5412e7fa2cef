"""Assign units to experiments and arms: a pure function of names, shares and a hash of the unit's id.

A unit takes the option of the smallest exponential clock, -log(u) / share, with an independent u per option: this gives
every option its share, and a changed share moves units only into or out of options whose share has changed. Former
shares are replayed: an option that became smaller releases the right part of its units, at random, to those that grew,
and nobody else moves. Different salts give independent assignments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from handsell.core.batches import NONE
from handsell.core.hashing import finalize, hash_text, hash_unit
from handsell.experiments.config import ALWAYS, Experiment, find_share, list_changes, to_micros

HOLDOUT_SALT = "holdout"
NOBODY = ""  # option of a layer: no experiment


def hash_units(unit_ids: Sequence[str | None]) -> np.ndarray:
    """(B,) uint64."""
    return np.array([hash_unit(unit_id) for unit_id in unit_ids], np.uint64)


def draw_unit(salt: str, unit: np.ndarray) -> np.ndarray:
    """Return (B,) float64 in (0, 1), uniform over units (B,) uint64 and independent between salts."""
    with np.errstate(over="ignore"):
        return ((finalize(unit ^ np.uint64(hash_text(salt))) >> np.uint64(11)) + 0.5) * 2.0**-53


def assign(salt: str, shares: Mapping[str, Sequence[float]], unit: np.ndarray, times: Sequence[int] = ()) -> np.ndarray:
    """Return for units (B,) uint64 the place of their option in `shares` (B,) int64; -1 for the unit 0.

    `shares` has the history of each option's share, oldest first, and `times` those of the changes; the shares of one
    time add up to 1.
    """
    history = np.array(list(shares.values()), np.float64).T  # (T + 1, options)
    if len(history) == 1 and history[0].max() == 1:  # the clocks of the others never ring
        return np.where(unit == 0, NONE, int(history[0].argmax()))
    clocks = np.full((len(shares), len(unit)), np.inf)
    for place, option in enumerate(shares):
        if history[0, place] > 0:
            clocks[place] = -np.log(draw_unit(f"{salt}/{option}", unit)) / history[0, place]
    chosen = clocks.argmin(axis=0)
    for time, before, after in zip(times, history[:-1], history[1:], strict=True):
        if (after > before).any():
            chosen = _move(chosen, before, after, draw_unit(f"{salt}#{time}", unit))
    return np.where(unit == 0, NONE, chosen)


def _move(chosen: np.ndarray, before: np.ndarray, after: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the options (B,) after one change of shares; drawn (B,) in (0, 1)."""
    growth = np.maximum(after - before, 0)
    keep = np.minimum(1.0, np.divide(after, before, out=np.ones_like(after), where=before > 0))[chosen]
    rest = (drawn - keep) / np.where(keep < 1, 1 - keep, 1)  # uniform in 0..1 among those that leave
    taken = np.searchsorted(np.cumsum(growth) / growth.sum(), rest, side="right")
    return np.where(drawn >= keep, np.minimum(taken, np.flatnonzero(growth)[-1]), chosen)


def assign_arm(salt: str, experiment: Experiment, unit: np.ndarray, time: int) -> np.ndarray:
    """Return the arms (B,) of units that take part, as places in `experiment.arms`; -1 for the unit 0. Time in µs.

    The salt is the experiment's name.
    """
    changes = {to_micros(former.until) for arm in experiment.arms.values() for former in arm.former}
    times = sorted(change for change in changes if change <= time)
    return assign(
        salt, {n: [find_share(arm, at) for at in (ALWAYS, *times)] for n, arm in experiment.arms.items()}, unit, times
    )


def assign_experiment(layer: str, experiments: Mapping[str, Experiment], unit: np.ndarray, time: int) -> np.ndarray:
    """Return the experiment (B,) of each unit at a time (µs), as a place in the layer's `experiments`; -1 for none."""
    times = [change for change in list_changes(experiments) if change <= time]
    shares = {name: [one.share_at(at) for at in (ALWAYS, *times)] for name, one in experiments.items()}
    rest = [max(0.0, 1 - sum(step)) for step in zip(*shares.values(), strict=True)]
    found = assign(f"layer {layer}", {**shares, NOBODY: rest}, unit, times)
    return np.where(found == len(experiments), NONE, found)


def is_held_out(share: float, unit: np.ndarray) -> np.ndarray:
    """Return whether units (B,) are in the permanent holdout."""
    return (draw_unit(HOLDOUT_SALT, unit) < share) & (unit != 0)
