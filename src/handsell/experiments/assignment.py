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
from handsell.experiments.config import Arm, Experiment

HOLDOUT_SALT = "holdout"
NOBODY = ""  # option of a layer: no experiment


def hash_units(unit_ids: Sequence[str | None]) -> np.ndarray:
    """(B,) uint64."""
    return np.array([hash_unit(unit_id) for unit_id in unit_ids], np.uint64)


def draw_unit(salt: str, unit: np.ndarray) -> np.ndarray:
    """Return (B,) float64 in (0, 1), uniform over units (B,) uint64 and independent between salts."""
    with np.errstate(over="ignore"):
        return ((finalize(unit ^ np.uint64(hash_text(salt))) >> np.uint64(11)) + 0.5) * 2.0**-53


def assign(salt: str, shares: Mapping[str, Sequence[float]], unit: np.ndarray) -> np.ndarray:
    """Return for units (B,) uint64 the place of their option in `shares` (B,) int64; -1 for the unit 0.

    `shares` has the history of each option's share, oldest first; those of one time add up to 1.
    """
    history = np.array(list(shares.values()), np.float64).T  # (T, options)
    clocks = np.full((len(shares), len(unit)), np.inf)
    for place, option in enumerate(shares):
        if history[0, place] > 0:
            clocks[place] = -np.log(draw_unit(f"{salt}/{option}", unit)) / history[0, place]
    chosen = clocks.argmin(axis=0)
    for step in range(1, len(history)):
        chosen = _move(chosen, history[step - 1], history[step], draw_unit(f"{salt}#{step}", unit))
    return np.where(unit == 0, NONE, chosen)


def _move(chosen: np.ndarray, before: np.ndarray, after: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the options (B,) after one change of shares; drawn (B,) in (0, 1)."""
    growth = np.maximum(after - before, 0)
    if not growth.any():
        return chosen
    keep = np.minimum(1.0, np.divide(after, before, out=np.ones_like(after), where=before > 0))[chosen]
    rest = (drawn - keep) / np.where(keep < 1, 1 - keep, 1)  # uniform in 0..1 among those that leave
    bounds = np.cumsum(growth) / growth.sum()
    taken = np.minimum(np.searchsorted(bounds, rest, side="right"), np.flatnonzero(growth)[-1])
    return np.where(drawn >= keep, taken, chosen)


def assign_arm(name: str, experiment: Experiment, unit: np.ndarray) -> np.ndarray:
    """Return the arms (B,) of units that take part, as places in `experiment.arms`; -1 for the unit 0."""
    return assign(name, list_histories(experiment.arms), unit)


def assign_experiment(layer: str, experiments: Mapping[str, Experiment], unit: np.ndarray) -> np.ndarray:
    """Return the experiment (B,) of each unit among those of one layer, as a place in them; -1 for none."""
    histories = list_histories(experiments)
    rest = [max(0.0, 1 - sum(step)) for step in zip(*histories.values(), strict=True)]
    found = assign(f"layer {layer}", {**histories, NOBODY: rest}, unit)
    return np.where(found == len(experiments), NONE, found)


def is_held_out(share: float, unit: np.ndarray) -> np.ndarray:
    """Return whether units (B,) are in the permanent holdout."""
    return (draw_unit(HOLDOUT_SALT, unit) < share) & (unit != 0)


def list_histories(options: Mapping[str, Arm] | Mapping[str, Experiment]) -> dict[str, list[float]]:
    """Return the shares of each option, oldest first and equally many; one without former shares was constant."""
    steps = max(len(option.former) for option in options.values())
    return {name: [*(one.former or (one.share,) * steps), one.share] for name, one in options.items()}
