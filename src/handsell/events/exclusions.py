"""What a user has been shown and what they block, and what is kept away because of it.

Served slates are read from the event log, so what another surface showed counts here: an e-mail need not repeat home.
A slate is in the log within a tenth of a second after it was answered (see events/impressions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, UserExclusions
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface
from handsell.events.reader import EventReader

Slate = tuple[int, str, list[str]]  # time µs, surface, item ids


def load_exclusions(
    reader: EventReader, user_ids: Sequence[str | None], time: np.ndarray, surface: np.ndarray, snapshot: Snapshot,
    config: Config,
) -> UserExclusions | None:  # fmt: skip
    """What B users may not be shown at `time` (B,) µs on surfaces (B,); None where nothing is kept from anybody.

    Raises sqlite3.Error where the log cannot be read.
    """
    rules = [tuple(config.surfaces.values())[code] for code in surface.tolist()]
    blocks = reader.blocks(list(dict.fromkeys(user_id for user_id in user_ids if user_id is not None)))
    if not blocks and not any(rule.remembers for rule in rules):
        return None
    shown, capped = [], []
    for user_id, now, rule in zip(user_ids, time.tolist(), rules, strict=True):
        slates: list[Slate] = []
        if user_id is not None and rule.remembers:
            slates = reader.slates_of(user_id, now - window_us(rule), now)
        shown.append(_known(snapshot.items, _shown_of_late(slates, now, rule)))
        capped.append(_often(snapshot.items, slates, now, rule))
    of_users = [blocks.get(user_id, ([], [])) if user_id is not None else ([], []) for user_id in user_ids]
    return UserExclusions(
        Ragged.from_rows(shown),
        Ragged.from_rows(capped),
        Ragged.from_rows([_known(snapshot.creators, creators) for creators, _ in of_users]),
        Ragged.from_rows([_known(snapshot.tags, tags) for _, tags in of_users]),
        np.zeros(len(time), bool),
    )


def _known(vocabulary: Vocabulary, ids: Sequence[str]) -> np.ndarray:
    numbers = vocabulary.number(ids)
    return numbers[numbers != NONE]


def window_us(surface: Surface) -> int:
    """How far back a surface looks."""
    days = [surface.shown_days] if surface.seen_on else []
    days += [surface.item_cap.days] if surface.item_cap else []
    return int(max(days, default=0.0) * DAY_US)


def _shown_of_late(slates: Sequence[Slate], now: int, rules: Surface) -> list[str]:
    since = now - int(rules.shown_days * DAY_US)
    return list(dict.fromkeys(i for time, on, ids in slates if on in rules.seen_on and time >= since for i in ids))


def _often(items: Vocabulary, slates: Sequence[Slate], now: int, rules: Surface) -> np.ndarray:
    """(C,) items whose impressions within the item cap's days have reached it."""
    if rules.item_cap is None:
        return np.zeros(0, np.int32)
    since = now - int(rules.item_cap.days * DAY_US)
    ids = [i for time, _, shown in slates if time >= since for i in shown]
    item, times = np.unique(items.number(ids), return_counts=True)
    return item[(times >= rules.item_cap.times) & (item != NONE)]
