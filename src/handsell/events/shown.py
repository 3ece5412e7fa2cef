"""What a user has been shown, and what a surface's rules keep away because of it.

Served slates are read from the event log, so what another surface showed counts here: an e-mail need not repeat home.
A slate is in the log within a tenth of a second after it was answered (see events/impressions.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.catalogue.snapshot import Snapshot
from handsell.core.batches import NONE, Barred, Ragged
from handsell.core.config import Config
from handsell.core.config.serving import Surface
from handsell.events.reader import EventReader

DAY_US = 86_400_000_000
Slate = tuple[int, str, list[str]]  # time µs, surface, item ids


def barred(
    reader: EventReader, user_ids: Sequence[str | None], time: np.ndarray, surface: np.ndarray, snapshot: Snapshot,
    config: Config,
) -> Barred | None:  # fmt: skip
    """What B users may not be shown at `time` (B,) µs on surfaces (B,); None where no surface asks.

    Raises sqlite3.Error where the log cannot be read.
    """
    surfaces = tuple(config.surfaces.values())
    if not any(surfaces[code].remembers for code in surface.tolist()):
        return None
    shown, capped = [], []
    for user_id, now, code in zip(user_ids, time.tolist(), surface.tolist(), strict=True):
        rules, slates = surfaces[code], []
        if user_id is not None and rules.remembers:
            slates = reader.slates_of(user_id, now - window_us(rules), now)
        shown.append(snapshot.items.number(_shown_of_late(slates, now, rules)))
        capped.append(_often(snapshot, slates, now, rules))
    nobody = Ragged.empty(len(time))
    return Barred(
        Ragged.from_rows([row[row != NONE] for row in shown]), Ragged.from_rows(capped), nobody, nobody,
        np.zeros(len(time), bool),
    )  # fmt: skip


def window_us(surface: Surface) -> int:
    """How far back a surface looks."""
    days = [surface.shown_days] if surface.seen_on else []
    days += [surface.item_cap.days] if surface.item_cap else []
    return int(max(days, default=0.0) * DAY_US)


def _shown_of_late(slates: Sequence[Slate], now: int, rules: Surface) -> list[str]:
    since = now - int(rules.shown_days * DAY_US)
    return list(dict.fromkeys(i for time, on, ids in slates if on in rules.seen_on and time >= since for i in ids))


def _often(snapshot: Snapshot, slates: Sequence[Slate], now: int, rules: Surface) -> np.ndarray:
    """(C,) items whose impressions within the item cap's days have reached it."""
    if rules.item_cap is None:
        return np.zeros(0, np.int32)
    since = now - int(rules.item_cap.days * DAY_US)
    ids = [i for time, _, shown in slates if time >= since for i in shown]
    item, times = np.unique(snapshot.items.number(ids), return_counts=True)
    return item[(times >= rules.item_cap.times) & (item != NONE)]
