"""The impressions of answers, which services write a moment after they have answered."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing

from handsell.config import Config
from handsell.events.store.interface import Columns
from handsell.events.store.opening import open_reader

SLATES_AT_ONCE = 2_000


def wait_for_impressions(config: Config, wanted: Collection[str], limit_s: float = 10.0) -> dict[str, Columns]:
    """Return the impressions of each recommendation id as columns with one row per item.

    All slates of the store are read, however many a long session of tests has left there. Raises TimeoutError.
    """
    missing, found, offset = set(wanted), {}, 0
    end = time.monotonic() + limit_s
    with closing(open_reader(config)) as reader:
        while missing:
            shown = reader.read_impressions(offset, SLATES_AT_ONCE)
            for name in missing.intersection(shown["recommendation_id"]):
                rows = [i for i, r in enumerate(shown["recommendation_id"]) if r == name]
                found[name] = {field: [cells[i] for i in rows] for field, cells in shown.items()}
            missing -= found.keys()
            if shown["offset"]:
                offset = shown["offset"][-1]
            elif time.monotonic() > end:
                raise TimeoutError(f"{len(missing)} of {len(wanted)} answers have no impression after {limit_s} s")
            else:
                time.sleep(0.05)
    return found


def wait_for_impression(config: Config, recommendation_id: str) -> Columns:
    """Return the impressions of one answer."""
    return wait_for_impressions(config, [recommendation_id])[recommendation_id]
