"""A run of batch slates: what stays the same however often it is begun again, and the counts of its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What stays the same however often the job is begun again."""

    id: str
    surface: str
    bundle: str
    time: int  # µs, as of which every slate is made
    users: int
    users_per_part: int
    record: bool  # whether the slates are logged as shown

    @property
    def parts(self) -> int:
        return -(-self.users // self.users_per_part)

    def of_part(self, part: int) -> range:
        """Numbers of the users of a part."""
        return range(part * self.users_per_part, min((part + 1) * self.users_per_part, self.users))


@dataclass(frozen=True, slots=True)
class PartCounts:
    """What a part's mark says."""

    users: int
    slates: int
    items: int
    capped: int  # users who have had as many slates of this surface as its cap allows
    empty: int  # users for whom nothing was found
