"""The service's clock: the wall's, or that of a historic log on whose last day the service lives."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from handsell.core.units import DAY_US


@dataclass(frozen=True, slots=True)
class Clock:
    """`offset_us` is subtracted from wall time; whole days, so that hours of the day keep their meaning."""

    offset_us: int = 0

    @classmethod
    def of(cls, kind: str, manifest: Any) -> Clock:
        """By `serving.clock` and the `created_us` and `data_end_us` of the bundle served.

        Never before the log's end: users' rows hold all of it, and a request must not see events after its time.
        """
        if kind != "data":
            return cls()
        return cls((manifest.created_us - manifest.data_end_us) // DAY_US * DAY_US)

    def now(self) -> int:
        """µs, as requests are stamped."""
        return time.time_ns() // 1_000 - self.offset_us

    def from_wall(self, wall_us: int) -> int:
        """A caller's wall time as the log keeps it."""
        return wall_us - self.offset_us
