"""A run of batch slates: its fixed settings, and the counts of its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchRun:
    """Settings that stay the same when a stopped job is resumed."""

    id: str
    surface: str
    bundle: str
    time: int  # µs, as-of time of every slate
    users: int
    users_per_part: int
    record: bool  # log the slates as impressions
    begun: int = 0  # µs of wall time, by which experiments run; 0: each part's own

    @property
    def parts(self) -> int:
        return -(-self.users // self.users_per_part)

    def of_part(self, part: int) -> range:
        """Numbers of the users of a part."""
        return range(part * self.users_per_part, min((part + 1) * self.users_per_part, self.users))


@dataclass(frozen=True, slots=True)
class PartCounts:
    """Counts in the mark of a finished part."""

    users: int
    slates: int
    items: int
    capped: int  # users who have reached the cap of the surface
    empty: int  # users without any item
