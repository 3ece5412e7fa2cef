"""A fair start for new items: their chance at each exploring position, paced so that they get their share of the day.

New items are those of catalog/new_items.py with few impressions so far. Impressions are counted and shared between
replicas like those of a daily quota (rules/pacing.py); but a quota fills positions for certain, and here every request
draws: the slate gets, in expectation, its own share and a part of what is owed. So the propensity stays exact.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handsell.catalog.new_items import is_new
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.config.overlay import apply_overlay, build_overlay
from handsell.core.batches import NONE, Requests
from handsell.core.units import DAY_US
from handsell.events.store.interface import EventReader, EventStoreError
from handsell.events.store.opening import open_reader
from handsell.reranking.config import NewItemsConfig
from handsell.reranking.exploration import NewItemFloor
from handsell.reranking.rules.counts import ShownSlates
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.pacing import Pacing
from handsell.reranking.rules.reading import Rules
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.scope import Scope
from handsell.reranking.rules.shared_counts import ROWS, SharedCountReader, SlateRow

log = logging.getLogger(__name__)

CATCH_UP = 0.1  # part of the owed impressions that one slate makes up for, at most so many as its own share
Arms = frozenset[tuple[str, str]]  # experiment and arm

MOST_CHANCE = 0.8  # of new items at one position: the greedy choice keeps a chance


class ItemCounts:
    """Impressions of every item; grows with the catalog. Only one thread adds."""

    def __init__(self, items: int):
        self._counts = np.zeros(items, np.int64)

    def add(self, items: np.ndarray) -> None:
        """Count items of any shape, -1 padded."""
        real = items[items != NONE]
        if len(real):
            most = max(int(real.max()) + 1, len(self._counts))
            counts = np.concatenate([self._counts, np.zeros(most - len(self._counts), np.int64)])
            self._counts = counts + np.bincount(real, minlength=most)

    def get(self, items: np.ndarray) -> np.ndarray:
        counts = self._counts
        known = (items != NONE) & (items < len(counts))
        return np.where(known, counts[np.where(known, items, 0)] if len(counts) else 0, 0)


@dataclass(frozen=True, eq=False)
class NewItemRules(RuleSet):
    """A daily quota whose items are the new ones with few impressions."""

    days: float = 0.0
    limit: int = 0
    counts: ItemCounts | None = None

    @classmethod
    def build(cls, settings: NewItemsConfig, snapshot: Snapshot, surfaces: Sequence[str]) -> NewItemRules:
        quota = rule_kinds()["quota"]
        wanted = {"newer_than_days": settings.days, "min_share": settings.share}
        rule = quota.schema.model_validate({"kind": "quota", "name": "new_items", **wanted})
        rules = Rules("", (rule,), {}, "reranking.exploration.new_items")
        return cls(
            rules, snapshot, Scope.of(rules, surfaces), (quota.effect(rule, snapshot),),
            np.ones(0, np.uint64), np.zeros(1, np.int64), settings.days, settings.impressions,
            ItemCounts(len(snapshot)),
        )  # fmt: skip

    def with_snapshot(self, snapshot: Snapshot) -> NewItemRules:
        parts = (self.rules, snapshot, self.scope, self.effects, self.member, self.age_us)
        return NewItemRules(*parts, self.days, self.limit, self.counts)

    def matches(self, items: np.ndarray, time: np.ndarray, rules: Sequence[int] | None = None) -> np.ndarray:
        """(1, B, K) bool, whether items (B, K) are new at time (B,) and have few impressions."""
        assert self.counts is not None
        return (is_new(self.snapshot, items, time, self.days) & (self.counts.get(items) < self.limit))[None]


class NewItems:
    """The new items of this process: without a reader they are counted and paced by its own slates alone."""

    def __init__(self, settings: NewItemsConfig, snapshot: Snapshot, surfaces: Sequence[str]):
        self._settings, self._surfaces = settings, surfaces
        self.pacing = Pacing(NewItemRules.build(settings, snapshot, surfaces))
        self.counts_own = True  # the store's slates are not read
        self.now = 0  # µs, the latest request's time

    @property
    def rules(self) -> NewItemRules:
        rules = self.pacing.ruleset
        assert isinstance(rules, NewItemRules)
        return rules

    def without_counting(self) -> NewItems:
        """Return the present state for slates that no user sees."""
        return _Uncounted(self)

    def follow(self, snapshot: Snapshot) -> None:
        """Continue on the next version of the live catalog."""
        self.pacing.ruleset = self.rules.with_snapshot(snapshot)

    def plan(self, requests: Requests, items: np.ndarray, positions: frozenset[int], n: int) -> NewItemFloor:
        """Return the chance of new items among the candidates (B, K) at the exploring positions of slates of n."""
        self.now = max(self.now, int(requests.time.max()))
        shown = np.full(len(requests), n) if requests.count is None else np.minimum(requests.count, n).astype(int)
        places = (np.array(sorted(positions))[:, None] < shown).sum(axis=0)
        new = self.rules.matches(items, requests.time)[0]
        natural = (new & (np.arange(items.shape[1]) < shown[:, None])).sum(axis=1)  # of the best candidates
        owed, chance = float(self.pacing.debt(self.now).owed[0]), np.zeros(len(requests))
        for b in np.flatnonzero(shown > 0):
            own = self._settings.share * shown[b]
            due = own - natural[b]
            if places[b] and new[b].any():
                chance[b] = np.clip((due + CATCH_UP * owed) / places[b], 0, min(2 * own / places[b], MOST_CHANCE))
            owed += due - chance[b] * places[b]
        return NewItemFloor(chance, new)

    def count(self, requests: Requests, item: np.ndarray) -> None:
        """Count the impressions of slates (B, n)."""
        if requests.count is not None:
            item = np.where(np.arange(item.shape[1]) < requests.count[:, None], item, NONE)
        self.pacing.add(ShownSlates(item, requests.time, requests.surface, requests.unit))
        if self.counts_own:
            self.rules.counts.add(item)  # type: ignore[union-attr]

    def get_impressions(self, items: np.ndarray) -> np.ndarray:
        """Return the counted impressions of items (B, K)."""
        return self.rules.counts.get(items)  # type: ignore[union-attr]


class _Uncounted(NewItems):
    def __init__(self, of: NewItems):
        self.__dict__.update(of.__dict__)

    def count(self, requests: Requests, item: np.ndarray) -> None:
        pass


class WatchedNewItems(NewItems):
    """Counts the served slates of all replicas, of the days for which items are new, in a thread of its own."""

    def __init__(self, config: Config, snapshot: Snapshot):
        settings = config.reranking.exploration.new_items
        super().__init__(settings, snapshot, config.surface_names)
        self.counts_own = False
        self._store = open_reader(config)
        weakref.finalize(self, self._store.close).atexit = False
        others = find_other_arms(config)
        self._reader = NewItemReader(self.pacing, self._store, config.surface_names, settings.days, others)
        self._last_error = ""

    def start(self, every_s: float) -> WatchedNewItems:
        threading.Thread(target=_watch, args=(weakref.ref(self), every_s), daemon=True).start()
        return self

    def read(self) -> None:
        """Read the slates since the last reading; without the store, this process paces its own slates."""
        if not self.now:
            return
        try:
            self._reader.read(self.now)
            self._last_error = ""
        except EventStoreError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning("slates cannot be read, new items are paced by the slates of this replica: %s", error)


class NewItemReader(SharedCountReader):
    """Counts the impressions of each item, too, from `days` before the first reading on.

    Slates of `others`, arms with another share, are not paced here: this share would make up for one that has none.
    """

    def __init__(
        self, pacing: Pacing, reader: EventReader, surfaces: Sequence[str], days: float, others: Arms = frozenset()
    ):
        super().__init__(pacing, reader, surfaces, int(days * DAY_US))
        self._others, self._paced = others, np.zeros(0, bool)

    def _add(self, rows: Sequence[SlateRow]) -> None:
        self._paced = self._find_paced([row[0] for row in rows])
        super()._add(rows)

    def _find_paced(self, offsets: Sequence[int]) -> np.ndarray:
        """Return (N,) bool, whether slates are of no arm with another share."""
        if not self._others:
            return np.ones(len(offsets), bool)
        shown = self._reader.read_impressions(offsets[0] - 1, ROWS)
        of_slate = dict(zip(shown["offset"], zip(shown["arms"], shown["interleaved"], strict=True), strict=True))
        mixed = {name for name, _ in self._others}
        told = [of_slate.get(offset, (None, None)) for offset in offsets]
        return np.array(
            [mix not in mixed and not self._others & json.loads(arms or "{}").items() for arms, mix in told], bool
        )

    def _count(self, seen: ShownSlates) -> None:
        paced = self._paced
        unit = None if seen.unit is None else seen.unit[paced]
        super()._count(ShownSlates(seen.item[paced], seen.time[paced], seen.surface[paced], unit))
        rules = self._pacing.ruleset
        assert isinstance(rules, NewItemRules) and rules.counts is not None
        rules.counts.add(seen.item)


def find_other_arms(config: Config) -> Arms:
    """Return the experiments and arms whose slates have another share of new items than the config's."""
    own, found = config.reranking.exploration.new_items, set()
    for name, experiment in config.experiments.items():
        for arm_name, arm in experiment.arms.items():
            changed = apply_overlay(config, build_overlay(config, [(experiment, arm)]))
            if changed.reranking.exploration.new_items != own:
                found.add((name, arm_name))
    return frozenset(found)


def watch_new_items(config: Config, snapshot: Snapshot) -> NewItems | None:
    """Return the deployment's new items and start counting the served slates; None if they get no share."""
    if not config.reranking.exploration.new_items.share:
        return None
    return WatchedNewItems(config, snapshot).start(config.serving.bundle_check_s)


def _watch(reference: weakref.ref[WatchedNewItems], every_s: float) -> None:
    while (items := reference()) is not None:
        try:
            items.read()
        except Exception:
            log.exception("the impressions of new items cannot be counted; the last counts stay")
        del items
        time.sleep(every_s)
