"""Requests as new users would make them: the same requests, with only the user's newest events."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Requests
from handsell.events.states import Events
from handsell.features.request_builder import build_requests_from_rows


def forget_all_but(
    requests: Requests, events: int, columns: tuple[str, ...], snapshot: Snapshot, config: Config
) -> Requests:
    """Return requests of users without a row, who have only the newest `events` of their history.

    `columns` are those of the user rows. Where seen items are excluded, those of the forgotten events still are.
    """
    past = requests.history
    known = past.item != NONE
    newest = known & (known[:, ::-1].cumsum(axis=1)[:, ::-1] <= events)
    row, place = np.nonzero(newest)
    kept = Events.of(row, *(array[row, place] for array in (past.item, past.type, past.time, past.weight)))
    hidden = Ragged.from_rows([np.unique(items[used]) for items, used in zip(past.item, known, strict=True)])
    excluded = requests.exclude if config.surfaces["home"].repeat == "allow" else hidden
    rows = {name: [None] * len(requests) for name in columns}
    return build_requests_from_rows(
        rows, snapshot, config, requests.time, requests.surface, exclude=excluded, events=kept
    )
