"""The eligibility mask: available at the request's time, not excluded, allowed by repeat policy and filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from handsell.catalogue.snapshot import Snapshot
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.config import Config
from handsell.core.config.serving import Surface
from handsell.core.errors import ConfigError, FilterError
from handsell.eligibility.filters import filters_of

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Eligibility:
    """`mask(requests)` → (B, I) bool. `surfaces` in the order of Config.surface_names."""

    snapshot: Snapshot
    surfaces: tuple[Surface, ...]

    @classmethod
    def of(cls, snapshot: Snapshot, config: Config) -> Eligibility:
        """Raises ConfigError for a surface's filter that this catalogue does not understand."""
        for name, surface in config.surfaces.items():
            try:
                if surface.filter is not None:
                    filters_of(snapshot).check(surface.filter)
            except FilterError as error:
                raise ConfigError(f"surfaces.{name}.filter: {error}") from None
        return cls(snapshot, tuple(config.surfaces.values()))

    def mask(self, requests: Requests) -> np.ndarray:
        """True where the item may be shown to that request."""
        allowed = self.available(requests.time)
        _clear(allowed, requests.exclude)
        _clear(allowed, self.repeats(requests))
        for rows, passes in self._filters(requests):
            for b in np.flatnonzero(rows):
                allowed[b] &= passes  # in place: allowed[rows] would copy
        return allowed

    def available(self, time: np.ndarray) -> np.ndarray:
        """(B, I) bool: published, not expired and available at time (B,) µs."""
        s = self.snapshot
        return (s.published <= time[:, None]) & (time[:, None] < s.expires) & s.available

    def repeats(self, requests: Requests) -> Ragged:
        """(B, *) items that the surface's repeat policy keeps from coming back."""
        seen = requests.seen
        quiet = np.array([_quiet_us(s) for s in self.surfaces])[requests.surface]  # (B,) µs
        row = seen.item.row_of_value
        blocked = (requests.time[row] - seen.time.values) < quiet[row]
        counts = np.bincount(row[blocked], minlength=len(requests))
        return Ragged(seen.item.values[blocked], np.concatenate([[0], np.cumsum(counts)]))

    def allows(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """(B, K) bool for given items (B, K): the fail-closed check of a finished slate; -1 is False."""
        s = self.snapshot
        at = np.maximum(items, 0)
        time = requests.time[:, None]
        good = (items != NONE) & (s.published[at] <= time) & (time < s.expires[at]) & s.available[at]
        repeats = self.repeats(requests)
        for b in range(len(requests)):
            barred = np.concatenate([requests.exclude.row(b), repeats.row(b)])
            if len(barred):
                good[b] &= ~np.isin(items[b], barred)
        for rows, passes in self._filters(requests):
            good[rows] &= passes[at[rows]]
        return good

    def reachable(self, requests: Requests) -> np.ndarray:
        """(I,) bool: what some request may be shown, leaving aside what each excludes: the catalogue of coverage."""
        ends = np.array([requests.time.min(), requests.time.max()])
        passes = [self._passes(self.surfaces[code].filter) for code in np.unique(requests.surface)]
        return self.available(ends).any(axis=0) & np.logical_or.reduce(passes)

    def filtered(self, requests: Requests) -> np.ndarray:
        """(B,) bool: a filter of the request or of its surface holds."""
        filtered = np.zeros(len(requests), bool)
        for rows, _ in self._filters(requests):
            filtered |= rows
        return filtered

    def _filters(self, requests: Requests) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each filter the rows (B,) bool that it holds for, and the items (I,) bool that pass."""
        asked = [(requests.surface == code, surface.filter) for code, surface in enumerate(self.surfaces)]
        if requests.filter is not None:
            asked += [(requests.filter == code, text) for code, text in enumerate(requests.filters)]
        for rows, text in asked:
            if text is not None and rows.any():
                yield rows, self._passes(text)

    def _passes(self, text: str | None) -> np.ndarray:
        return np.ones(len(self.snapshot), bool) if text is None else filters_of(self.snapshot).mask(text)


def _quiet_us(surface: Surface) -> int:
    """Quiet time that a seen item needs before it may come back: none, some days, or for ever."""
    if surface.repeat == "allow":
        return 0
    if surface.repeat == "exclude":
        return np.iinfo(np.int64).max
    return int(surface.after_days * DAY_US)


def _clear(mask: np.ndarray, items: Ragged) -> None:
    known = (items.values >= 0) & (items.values < mask.shape[1])
    mask[items.row_of_value[known], items.values[known]] = False
