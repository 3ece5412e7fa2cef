"""The eligibility mask: availability at the request's time, exclusions, blocks, repeat policy and filters.

`filter_reasons` says which of them removes an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Ragged, Requests, UserExclusions
from handsell.core.errors import ConfigError, FilterError
from handsell.core.units import DAY_US
from handsell.eligibility.availability import Availability, LiveAvailability
from handsell.eligibility.config import Surface
from handsell.eligibility.filters import find_user_attributes, get_filters
from handsell.eligibility.listed_items import clear_listed, clear_repeats, find_repeats, flag_available
from handsell.eligibility.plans import User


@dataclass(frozen=True)
class Eligibility:
    """`mask(requests)` → (B, I) bool. `surfaces` in the order of Config.surface_names."""

    snapshot: Snapshot
    surfaces: tuple[Surface, ...]
    attributes: tuple[tuple[str, str], ...] = ()  # of users: name and kind, as in Requests
    known: Availability | None = field(default=None, compare=False)  # of the snapshot, if it was made before

    @classmethod
    def of(cls, snapshot: Snapshot, config: Config) -> Eligibility:
        """Raises ConfigError for a surface's filter that does not fit this catalog."""
        attributes = config.features.filter_attributes
        for name, surface in config.surfaces.items():
            try:
                if surface.filter is not None:
                    get_filters(snapshot).check(surface.filter, attributes)
            except FilterError as error:
                raise ConfigError(f"surfaces.{name}.filter: {error}") from None
        return cls(snapshot, tuple(config.surfaces.values()), tuple(attributes.items()))

    def with_config(self, config: Config) -> Eligibility:
        """Return the eligibility with other settings of the surfaces; raises ConfigError as `of` does."""
        return replace(self.of(self.snapshot, config), known=self.availability)

    def with_snapshot(self, snapshot: Snapshot) -> Eligibility:
        """Return the eligibility under another version of this catalog's live changes."""
        if not isinstance(snapshot, LiveSnapshot):
            return replace(self, snapshot=snapshot, known=None)
        known = self.availability
        before = known.before if isinstance(known, LiveAvailability) else known
        return replace(self, snapshot=snapshot, known=LiveAvailability(snapshot=snapshot, before=before))

    def mask(self, requests: Requests) -> np.ndarray:
        """Return (B, I) bool, whether the item may be shown."""
        allowed = self.find_available(requests.time)
        clear_listed(allowed, requests.exclude)
        clear_repeats(allowed, requests.seen, requests.time, self._repeat_after[requests.surface])
        if requests.exclusions is not None:
            self._clear_exclusions(allowed, requests.exclusions)
        for _, rows, passes in self.apply_filters(requests):
            for b in np.flatnonzero(rows):
                allowed[b] &= passes  # in place: allowed[rows] would copy
        return allowed

    def find_available(self, time: np.ndarray) -> np.ndarray:
        """Return (B, I) bool, whether the item is published, not expired and available at time (B,) µs."""
        return self.availability.at(time)

    @cached_property
    def availability(self) -> Availability:
        return self.known or Availability(self.snapshot)

    def find_repeats(self, requests: Requests) -> Ragged:
        """Return (B, *) seen items that the surface's repeat policy excludes."""
        return find_repeats(requests.seen, requests.time, self._repeat_after[requests.surface])

    @cached_property
    def _repeat_after(self) -> np.ndarray:
        """(S,) µs by surface code, see `_repeat_after_us`."""
        return np.array([_repeat_after_us(surface) for surface in self.surfaces], np.int64)

    def allows(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return (B, K) bool, whether items (B, K) may be shown; False for -1. The same rules as `mask`."""
        good = flag_available(self.snapshot, items, requests.time)
        clear_listed(good, requests.exclude, items)
        clear_repeats(good, requests.seen, requests.time, self._repeat_after[requests.surface], items)
        if requests.exclusions is not None:
            self._clear_exclusions(good, requests.exclusions, items)
        for _, rows, passes in self.apply_filters(requests):
            good[rows] &= passes[np.maximum(items[rows], 0)]
        return good

    def _clear_exclusions(
        self, allowed: np.ndarray, exclusions: UserExclusions, items: np.ndarray | None = None
    ) -> None:
        """Clear flags (B, W) of excluded items: the columns of these numbers, or those with these items (B, W)."""
        clear_listed(allowed, exclusions.shown, items)
        clear_listed(allowed, exclusions.capped, items)
        for b in range(len(allowed)):
            if (blocked := self.find_blocked(exclusions, b)) is not None:
                allowed[b] &= ~(blocked if items is None else blocked[np.maximum(items[b], 0)])

    def find_blocked(self, exclusions: UserExclusions, b: int) -> np.ndarray | None:
        """Return (I,) bool, items with a creator or tag that row b blocks; all if these cannot be read; None: none."""
        if exclusions.unreadable[b]:
            return np.ones(len(self.snapshot), bool)
        creators, tags = exclusions.creator.row(b), exclusions.tag.row(b)
        if not len(creators) and not len(tags):
            return None
        return select_by_creator(self.snapshot, creators) | select_by_tag(self.snapshot, tags)

    def find_reachable(self, requests: Requests) -> np.ndarray:
        """Return (I,) bool, items that some request may show, regardless of each request's exclusions; for coverage."""
        ends = np.array([requests.time.min(), requests.time.max()])
        passes, unfiltered = np.zeros(len(self.snapshot), bool), np.ones(len(requests), bool)
        for name, rows, some in self.apply_filters(requests):
            if name == "surface_filter":
                passes |= some
                unfiltered &= ~rows
        return self.find_available(ends).any(axis=0) & (passes | unfiltered.any())

    def has_filter(self, requests: Requests) -> np.ndarray:
        """Return (B,) bool, whether the request or its surface has a filter."""
        filtered = np.zeros(len(requests), bool)
        for _, rows, _ in self.apply_filters(requests):
            filtered |= rows
        return filtered

    def apply_filters(self, requests: Requests) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield each filter's origin, the rows (B,) bool to which it applies, and the items (I,) bool that pass."""
        filters = [("surface_filter", requests.surface == code, text) for code, text in self._surface_filters]
        if requests.filter is not None:
            filters += [("request_filter", requests.filter == code, text) for code, text in enumerate(requests.filters)]
        for name, rows, text in filters:
            if rows.any():
                for those, user in self._group_by_user(text, requests, rows):
                    yield name, those, get_filters(self.snapshot).mask(text, user)

    @cached_property
    def _surface_filters(self) -> list[tuple[int, str]]:
        """Codes and filters of the surfaces that have one."""
        return [(code, surface.filter) for code, surface in enumerate(self.surfaces) if surface.filter is not None]

    def _group_by_user(self, text: str, requests: Requests, rows: np.ndarray) -> Iterator[tuple[np.ndarray, User]]:
        """Group rows (B,) bool by the values of the user attributes that the filter reads."""
        read = set(find_user_attributes(text))
        places = [(a, name, kind) for a, (name, kind) in enumerate(self.attributes) if name in read]
        if not places or requests.attributes is None:
            yield rows, tuple((name, kind, None) for _, name, kind in places)
            return
        groups: dict[User, np.ndarray] = {}
        for b in np.flatnonzero(rows).tolist():
            user = tuple((name, kind, requests.attributes[b, a]) for a, name, kind in places)
            groups.setdefault(user, np.zeros(len(requests), bool))[b] = True
        yield from ((those, user) for user, those in groups.items())


def _repeat_after_us(surface: Surface) -> int:
    """Return the time in µs after which a seen item may be shown again: 0, `after_days`, or never."""
    if surface.repeat == "allow":
        return 0
    if surface.repeat == "exclude":
        return np.iinfo(np.int64).max
    return int(surface.after_days * DAY_US)


def select_by_creator(snapshot: Snapshot, creators: np.ndarray) -> np.ndarray:
    """Return (I,) bool, items whose primary creator is one of these numbers."""
    wanted = np.zeros(len(snapshot.creators) + 1, bool)  # the last entry is for creator -1
    wanted[creators] = True
    return wanted[snapshot.creator]


def select_by_tag(snapshot: Snapshot, tags: np.ndarray) -> np.ndarray:
    """Return (I,) bool, items that have one of these tags."""
    return snapshot.find_tagged(tags)
