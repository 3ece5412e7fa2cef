"""The eligibility mask: available at the request's time, not excluded, not kept from this user, allowed by repeat
policy and filters. Which filter removed what is told by `handsell.eligibility.filter_reasons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Requests, UserExclusions
from handsell.core.errors import ConfigError, FilterError
from handsell.core.units import DAY_US
from handsell.eligibility.availability import Availability
from handsell.eligibility.config import Surface
from handsell.eligibility.filters import filters_of, user_attributes
from handsell.eligibility.plans import User


@dataclass(frozen=True)
class Eligibility:
    """`mask(requests)` → (B, I) bool. `surfaces` in the order of Config.surface_names."""

    snapshot: Snapshot
    surfaces: tuple[Surface, ...]
    attributes: tuple[tuple[str, str], ...] = ()  # of users, that filters may read: name and kind, as Requests has them

    @classmethod
    def of(cls, snapshot: Snapshot, config: Config) -> Eligibility:
        """Raises ConfigError for a surface's filter that this catalog does not understand."""
        attributes = config.features.filter_attributes
        for name, surface in config.surfaces.items():
            try:
                if surface.filter is not None:
                    filters_of(snapshot).check(surface.filter, attributes)
            except FilterError as error:
                raise ConfigError(f"surfaces.{name}.filter: {error}") from None
        return cls(snapshot, tuple(config.surfaces.values()), tuple(attributes.items()))

    def mask(self, requests: Requests) -> np.ndarray:
        """True where the item may be shown to that request."""
        allowed = self.available(requests.time)
        _clear(allowed, requests.exclude)
        _clear(allowed, self.repeats(requests))
        if requests.exclusions is not None:
            self._bar(allowed, requests.exclusions)
        for _, rows, passes in self.filters(requests):
            for b in np.flatnonzero(rows):
                allowed[b] &= passes  # in place: allowed[rows] would copy
        return allowed

    def available(self, time: np.ndarray) -> np.ndarray:
        """(B, I) bool: published, not expired and available at time (B,) µs."""
        return self._availability.at(time)

    @cached_property
    def _availability(self) -> Availability:
        return Availability(self.snapshot)

    def repeats(self, requests: Requests) -> Ragged:
        """(B, *) items that the surface's repeat policy keeps from coming back."""
        seen = requests.seen
        quiet = np.array([_quiet_us(s) for s in self.surfaces])[requests.surface]  # (B,) µs
        row = seen.item.row_of_value
        blocked = (requests.time[row] - seen.time.values) < quiet[row]
        return seen.item.where(blocked)

    def allows(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """(B, K) bool for given items (B, K): the fail-closed check of a finished slate; -1 is False."""
        s = self.snapshot
        at = np.maximum(items, 0)
        time = requests.time[:, None]
        good = (items != NONE) & (s.published[at] <= time) & (time < s.expires[at]) & s.available[at]
        repeats = self.repeats(requests)
        for b in range(len(requests)):
            gone = [requests.exclude.row(b), repeats.row(b)]
            if requests.exclusions is not None:
                gone += [requests.exclusions.shown.row(b), requests.exclusions.capped.row(b)]
                if (blocked := self.blocked(requests.exclusions, b)) is not None:
                    good[b] &= ~blocked[at[b]]
            if any(map(len, gone)):
                good[b] &= ~np.isin(items[b], np.concatenate(gone))
        for _, rows, passes in self.filters(requests):
            good[rows] &= passes[at[rows]]
        return good

    def _bar(self, allowed: np.ndarray, exclusions: UserExclusions) -> None:
        _clear(allowed, exclusions.shown)
        _clear(allowed, exclusions.capped)
        for b in range(len(allowed)):
            if (blocked := self.blocked(exclusions, b)) is not None:
                allowed[b] &= ~blocked

    def blocked(self, exclusions: UserExclusions, b: int) -> np.ndarray | None:
        """(I,) bool: items of creators and tags that row b blocks, or all where that is not known; None: no item."""
        if exclusions.unreadable[b]:
            return np.ones(len(self.snapshot), bool)
        creators, tags = exclusions.creator.row(b), exclusions.tag.row(b)
        if not len(creators) and not len(tags):
            return None
        return of_creators(self.snapshot, creators) | with_tags(self.snapshot, tags)

    def reachable(self, requests: Requests) -> np.ndarray:
        """(I,) bool: what some request may be shown, leaving aside what each excludes: the catalog of coverage."""
        ends = np.array([requests.time.min(), requests.time.max()])
        passes, unfiltered = np.zeros(len(self.snapshot), bool), np.ones(len(requests), bool)
        for name, rows, some in self.filters(requests):
            if name == "surface_filter":
                passes |= some
                unfiltered &= ~rows
        return self.available(ends).any(axis=0) & (passes | unfiltered.any())

    def filtered(self, requests: Requests) -> np.ndarray:
        """(B,) bool: a filter of the request or of its surface holds."""
        filtered = np.zeros(len(requests), bool)
        for _, rows, _ in self.filters(requests):
            filtered |= rows
        return filtered

    def filters(self, requests: Requests) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Of each filter whose it is, the rows (B,) bool that it holds for, and the items (I,) bool that pass."""
        asked = [
            ("surface_filter", requests.surface == code, surface.filter) for code, surface in enumerate(self.surfaces)
        ]
        if requests.filter is not None:
            asked += [("request_filter", requests.filter == code, text) for code, text in enumerate(requests.filters)]
        for name, rows, text in asked:
            if text is not None and rows.any():
                for those, user in self._users(text, requests, rows):
                    yield name, those, filters_of(self.snapshot).mask(text, user)

    def _users(self, text: str, requests: Requests, rows: np.ndarray) -> Iterator[tuple[np.ndarray, User]]:
        """Rows (B,) bool by what the filter reads of their users: an expression that reads nothing has one group."""
        read = set(user_attributes(text))
        places = [(a, name, kind) for a, (name, kind) in enumerate(self.attributes) if name in read]
        if not places or requests.attributes is None:
            yield rows, tuple((name, kind, None) for _, name, kind in places)
            return
        groups: dict[User, np.ndarray] = {}
        for b in np.flatnonzero(rows).tolist():
            user = tuple((name, kind, requests.attributes[b, a]) for a, name, kind in places)
            groups.setdefault(user, np.zeros(len(requests), bool))[b] = True
        yield from ((those, user) for user, those in groups.items())


def _quiet_us(surface: Surface) -> int:
    """Quiet time that a seen item needs before it may come back: none, some days, or for ever."""
    if surface.repeat == "allow":
        return 0
    if surface.repeat == "exclude":
        return np.iinfo(np.int64).max
    return int(surface.after_days * DAY_US)


def of_creators(snapshot: Snapshot, creators: np.ndarray) -> np.ndarray:
    """(I,) bool: items whose primary creator is one of these numbers."""
    wanted = np.zeros(len(snapshot.creators) + 1, bool)  # the last place is that of creator -1
    wanted[creators] = True
    return wanted[snapshot.creator]


def with_tags(snapshot: Snapshot, tags: np.ndarray) -> np.ndarray:
    """(I,) bool: items that have one of these tags."""
    holders, found = snapshot.items_by_tag, np.zeros(len(snapshot), bool)
    for tag in tags.tolist():
        found[holders.indices[holders.indptr[tag] : holders.indptr[tag + 1]]] = True
    return found


def _clear(mask: np.ndarray, items: Ragged) -> None:
    known = (items.values >= 0) & (items.values < mask.shape[1])
    mask[items.row_of_value[known], items.values[known]] = False
