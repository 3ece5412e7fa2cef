"""Exclusions by user: items that were shown recently or too often, and blocked creators and tags; ignored items.

Served slates are read from the event log, so a surface can exclude items that other surfaces have shown.
A slate is in the log within 0.1 s of its answer (see events/impressions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Seen, UserExclusions
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface
from handsell.events.known_blocks import KnownBlocks
from handsell.events.store.interface import EventReader, Slate


def load_exclusions(
    reader: EventReader, user_ids: Sequence[str | None], time: np.ndarray, surface: np.ndarray, snapshot: Snapshot,
    config: Config,
) -> tuple[UserExclusions, Seen | None] | None:  # fmt: skip
    """Read the exclusions of B users at `time` (B,) µs on surfaces (B,); None where no user has any.

    Returns also the impressions by which items may be ignored, None where the config does not use them.

    Raises EventStoreError if the store cannot be read.
    """
    rules = [tuple(config.surfaces.values())[code] for code in surface.tolist()]
    known = list(dict.fromkeys(user_id for user_id in user_ids if user_id is not None))
    blocks = reader.read_blocks(known) if known else {}
    fatigue = config.reranking.fatigue
    fatigue_us = int(fatigue.days * DAY_US) if fatigue.weight else 0
    if not blocks and not fatigue_us and not any(rule.uses_impressions for rule in rules):
        return None
    shown, capped, impressions = [], [], []
    slates_of = _read_slates(reader, user_ids, time.tolist(), rules, fatigue_us)
    for now, rule, slates in zip(time.tolist(), rules, slates_of, strict=True):
        shown.append(_known(snapshot.items, _find_recently_shown(slates, now, rule)))
        capped.append(_find_capped(snapshot.items, slates, now, rule))
        impressions.append(_list_impressions(snapshot.items, slates, now - fatigue_us))
    seen = _join(impressions) if fatigue_us else None
    of_users = [blocks.get(user_id, ([], [])) if user_id is not None else ([], []) for user_id in user_ids]
    return UserExclusions(
        Ragged.from_rows(shown),
        Ragged.from_rows(capped),
        Ragged.from_rows([_known(snapshot.creators, creators) for creators, _ in of_users]),
        Ragged.from_rows([_known(snapshot.tags, tags) for _, tags in of_users]),
        np.zeros(len(time), bool),
    ), seen


def count_ignored(exclusions: UserExclusions, impressions: Seen, acted: Seen) -> UserExclusions:
    """Return exclusions with the items whose impressions (B, *) are later than the user's last action on them."""
    ignored, times = [], []
    for b in range(len(exclusions.unreadable)):
        item, time = impressions.item.row(b), impressions.time.row(b)
        known, last = acted.item.row(b), acted.time.row(b)  # ascending by item
        at = np.minimum(np.searchsorted(known, item), max(len(known) - 1, 0))
        if len(known):
            item = item[(known[at] != item) | (time > last[at])]
        found, count = np.unique(item, return_counts=True)
        ignored.append(found)
        times.append(count)
    return replace(exclusions, ignored=Ragged.from_rows(ignored), ignored_times=Ragged.from_rows(times))


def _list_impressions(items: Vocabulary, slates: Sequence[Slate], since: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the items (N,) of a user's impressions since a time, and when they were shown (N,) µs."""
    some = [(time, shown) for time, _, shown in slates if time >= since]
    item = items.number([i for _, shown in some for i in shown])
    time = np.repeat(np.array([t for t, _ in some], np.int64), [len(shown) for _, shown in some])
    return item[item != NONE], time[item != NONE]


def _join(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> Seen:
    return Seen(Ragged.from_rows([item for item, _ in rows]), Ragged.from_rows([t for _, t in rows], np.int64))


def apply_known_blocks(
    blocks: KnownBlocks | None, user_ids: Sequence[str | None], snapshot: Snapshot
) -> UserExclusions:
    """Return the exclusions of B users while the store cannot be read: the known blocks, without shown items.

    Users are shown nothing until all blocks have been read once.
    """
    none = UserExclusions.empty(len(user_ids))
    if blocks is None or not blocks.is_complete:
        return replace(none, unreadable=np.array([user_id is not None for user_id in user_ids], bool))
    found = [None if user_id is None else blocks.find(user_id) for user_id in user_ids]
    creators = [_known(snapshot.creators, () if one is None else one.creators) for one in found]
    tags = [_known(snapshot.tags, () if one is None else one.tags) for one in found]
    return replace(none, creator=Ragged.from_rows(creators), tag=Ragged.from_rows(tags))


def _read_slates(
    reader: EventReader, user_ids: Sequence[str | None], time: Sequence[int], rules: Sequence[Surface], least_us: int
) -> list[list[Slate]]:
    """Read the slates of each user that the rules of the surface need, at least those of `least_us`, in one query."""
    asked = [
        (b, user_id, now - max(compute_window_us(rule), least_us), now)
        for b, (user_id, now, rule) in enumerate(zip(user_ids, time, rules, strict=True))
        if user_id is not None and (rule.uses_impressions or least_us)
    ]
    slates: list[list[Slate]] = [[] for _ in user_ids]
    if asked:
        rows, ids, since, before = zip(*asked, strict=True)
        for b, found in zip(rows, reader.read_slates_of_users(ids, since, before), strict=True):
            slates[b] = found
    return slates


def _known(vocabulary: Vocabulary, ids: Sequence[str]) -> np.ndarray:
    numbers = vocabulary.number(ids)
    return numbers[numbers != NONE]


def compute_window_us(surface: Surface) -> int:
    """Return how far back a surface reads the served slates, µs."""
    days = [surface.shown_days] if surface.seen_on else []
    days += [surface.item_cap.days] if surface.item_cap else []
    return int(max(days, default=0.0) * DAY_US)


def _find_recently_shown(slates: Sequence[Slate], now: int, rules: Surface) -> list[str]:
    since = now - int(rules.shown_days * DAY_US)
    return list(dict.fromkeys(i for time, on, ids in slates if on in rules.seen_on and time >= since for i in ids))


def _find_capped(items: Vocabulary, slates: Sequence[Slate], now: int, rules: Surface) -> np.ndarray:
    """(C,) items with at least `item_cap.times` impressions within `item_cap.days`."""
    if rules.item_cap is None:
        return np.zeros(0, np.int32)
    since = now - int(rules.item_cap.days * DAY_US)
    ids = [i for time, _, shown in slates if time >= since for i in shown]
    item, times = np.unique(items.number(ids), return_counts=True)
    return item[(times >= rules.item_cap.times) & (item != NONE)]
