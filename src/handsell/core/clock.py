"""The clock of the service: wall time, or wall time shifted to the day after a historic log."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from handsell.core.units import DAY_US


@dataclass(frozen=True, slots=True)
class Clock:
    """`offset_us` is subtracted from wall time. It is a whole number of days, which keeps the time of day."""

    offset_us: int = 0

    @classmethod
    def of(cls, kind: str, manifest: Any) -> Clock:
        """Build the clock from `serving.clock` and the manifest of the served bundle.

        A data clock starts at the end of the log or later: user rows contain the whole log, and a request must not
        use events after its time. A bundle that was built after the last day of the log starts after that day, which
        the item values of the snapshot contain. For a log that ends today, both clocks are wall time.
        """
        if kind != "data":
            return cls()
        next_day = ((manifest.data_end_us - 1) // DAY_US + 1) * DAY_US
        start = next_day if manifest.created_us >= next_day else manifest.data_end_us
        return cls((manifest.created_us - start) // DAY_US * DAY_US)

    def now(self) -> int:
        """The time of new requests, µs."""
        return time.time_ns() // 1_000 - self.offset_us

    def from_wall(self, wall_us: int) -> int:
        """Convert the wall time of a caller into the time of the log."""
        return wall_us - self.offset_us
