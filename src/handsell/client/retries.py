"""When a failed call is sent again."""

from __future__ import annotations

import random
import time

from handsell.client.errors import ClientError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


def draw_wait(failures: int, first_s: float = FIRST_WAIT_S, longest_s: float = LONGEST_WAIT_S) -> float:
    """Draw the seconds before the next attempt: twice as long after each failure, and different for each client."""
    longest = min(first_s * 2 ** min(failures - 1, 20), longest_s)
    return longest * random.uniform(0.5, 1.0)


class Attempts:
    """The attempts of one call: at most `retries` after the first, none after `timeout_s`."""

    def __init__(self, retries: int, timeout_s: float):
        self._retries, self._ends = retries, time.monotonic() + timeout_s
        self.failures = 0

    @property
    def left_s(self) -> float:
        """Time that is left for the call."""
        return max(self._ends - time.monotonic(), 0.001)

    def find_wait(self, error: ClientError) -> float:
        """Return the seconds before the next attempt, or raise the error: it is final, or the time is over."""
        self.failures += 1
        wait_s = max(error.retry_after_s or 0.0, draw_wait(self.failures))
        if not error.is_temporary or self.failures > self._retries or wait_s >= self._ends - time.monotonic():
            raise error
        return wait_s
