"""Requests sampled from the interactions, on which an approximate index is tuned."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.data.interactions import Interactions

USERS, HISTORY = 256, 50


def sample_requests(interactions: Interactions, users: int = USERS, seed: int = 0) -> Requests:
    """Sample up to `users` users, each with a request 1 µs after their last event and their HISTORY newest events."""
    active = np.unique(interactions.user)
    drawn = np.sort(np.random.default_rng(seed).permutation(active)[:users])
    end = np.searchsorted(interactions.user, drawn, side="right")
    begin = np.searchsorted(interactions.user, drawn)
    at = end[:, None] + np.arange(-HISTORY, 0)
    inside = at >= begin[:, None]
    at = np.where(inside, at, 0)
    past = History(
        np.where(inside, interactions.item[at], -1).astype(np.int32),
        np.where(inside, interactions.type[at], -1).astype(np.int8),
        np.where(inside, interactions.time[at], 0),
        np.where(inside, interactions.weight[at], 0).astype(np.float32),
    )
    nothing = np.zeros((len(drawn), 0))
    return Requests(
        user=drawn.astype(np.int32), time=interactions.time[end - 1] + 1, surface=np.zeros(len(drawn), np.int8),
        history=past,
        profile=Profile(*(nothing.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(len(drawn)), Ragged.empty(len(drawn), np.int64)), exclude=Ragged.empty(len(drawn)),
    )  # fmt: skip
