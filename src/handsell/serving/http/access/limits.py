"""Limits of a key: a rate on each gateway, and a quota of a day on all gateways together."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from handsell.access.api_key import ApiKey
from handsell.access.config import AccessConfig
from handsell.core.units import DAY_US, SECOND_US

BURST_S = 2.0  # requests of this time may come at once
MANY = 10_000  # buckets, above which those that are full again are dropped


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a request is one too many, and after how many seconds the next is not."""

    detail: str
    code: str
    retry_after_s: int


class _Bucket(NamedTuple):
    tokens: float
    at: float  # when there were as many
    full_at: float


class KeyLimits:
    """A token bucket for each key, of a widget for each user, and the key's requests of the present UTC day.

    Requests of other gateways are counted as of the last exchange with the event store, about a second ago.
    """

    def __init__(self, config: AccessConfig):
        self._rate, self._quota = config.rate_per_s, config.quota_per_day
        self._buckets: dict[tuple[str, str | None], _Bucket] = {}
        self._drop_at = MANY
        self.day = 0
        self._stored: dict[str, int] = {}  # requests of the day in the event store
        self._new: Counter[str] = Counter()  # not in the event store yet
        self._sending: Counter[str] = Counter()

    def find_excess(self, key: ApiKey, user_id: str | None = None) -> Excess | None:
        """Count a request of a key, or of a widget's user; return why it is refused, None where it is not."""
        rate = key.rate_per_s if key.rate_per_s is not None else self._rate
        if rate is not None and (wait_s := self._take_token((key.key_id, user_id), rate)) > 0:
            detail = f"expected at most {rate:g} requests per second with key {key.name!r}, got more: send them slower"
            return Excess(detail, "rate_limited", math.ceil(wait_s))
        quota = key.quota_per_day if key.quota_per_day is not None else self._quota
        return None if quota is None else self._count(key, quota)

    def _take_token(self, whose: tuple[str, str | None], rate: float) -> float:
        """Take a token; return the seconds until there is one if there is none now."""
        now, size = time.monotonic(), max(1.0, rate * BURST_S)
        bucket = self._buckets.get(whose) or _Bucket(size, now, now)
        tokens = min(size, bucket.tokens + (now - bucket.at) * rate)
        is_free = tokens >= 1.0
        left = tokens - 1.0 if is_free else tokens
        self._buckets[whose] = _Bucket(left, now, now + (size - left) / rate)
        if len(self._buckets) > self._drop_at:
            self._buckets = {one: bucket for one, bucket in self._buckets.items() if bucket.full_at > now}
            self._drop_at = max(MANY, 2 * len(self._buckets))
        return 0.0 if is_free else (1.0 - tokens) / rate

    def _count(self, key: ApiKey, quota: int) -> Excess | None:
        now_us = time.time_ns() // 1_000
        self._begin(now_us // DAY_US)
        used = self._stored.get(key.key_id, 0) + self._sending[key.key_id] + self._new[key.key_id]
        if used < quota:
            self._new[key.key_id] += 1
            return None
        detail = f"expected at most {quota:,} requests in a UTC day with key {key.name!r}, got more"
        return Excess(detail, "quota_exceeded", math.ceil((DAY_US - now_us % DAY_US) / SECOND_US))

    def _begin(self, day: int) -> None:
        if day != self.day:
            self.day, self._stored, self._new, self._sending = day, {}, Counter(), Counter()

    # -- exchange with the event store ----------------------------------------------------------------------

    def take_new(self) -> tuple[int, dict[str, int]]:
        """Return the day and the requests that are not in the store yet; `keep` or `confirm` them afterwards."""
        self._sending, self._new = self._new, Counter()
        return self.day, dict(self._sending)

    def confirm(self, day: int) -> None:
        """Count what was taken as stored."""
        if day == self.day:
            self._stored = dict(Counter(self._stored) + self._sending)
        self._sending = Counter()

    def keep(self, day: int) -> None:
        """Count what was taken as not stored."""
        if day == self.day:
            self._new += self._sending
        self._sending = Counter()

    def set_stored(self, day: int, requests: dict[str, int]) -> None:
        """Replace the requests that the store has of a day."""
        if day == self.day:
            self._stored = requests
