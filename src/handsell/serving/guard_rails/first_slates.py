"""Follow the event store: whether units click in the first slate that they get in an arm.

Each unit counts once, when the time for its events is over; slates of batch jobs, which wait for their readers, do not
count. Slates of one unit depend on each other, so that counting
all of them would let a few active users decide.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from handsell.core.hashing import hash_text
from handsell.data.config import EventsConfig
from handsell.events.impressions import is_batch
from handsell.events.store.interface import EventReader

PAGE = 1_000  # slates read at once
EVENTS = 10_000  # events read at once
PAGES = 5  # of slates or events in one step
EARLY = 10_000  # events kept whose slate may not be stored yet
MAX_UNITS = 1_000_000  # remembered per experiment

CLICK = ""  # stands for any event of positive weight

Key = tuple[str, str]  # experiment and arm


@dataclass
class Finished:
    """Units of one arm whose time is over: how many, and how many of them with each event type, and with CLICK."""

    units: int = 0
    acted: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Finished) -> None:
        self.units += other.units
        self.acted.update(other.acted)


@dataclass
class FirstSlate:
    keys: list[Key]
    types: set[str] = field(default_factory=set)  # of the events that name it
    until: dict[Key, float] = field(default_factory=dict)


class FirstSlates:
    """Follows slates and events after their offsets; `windows` are the seconds of each experiment."""

    def __init__(self, reader: EventReader, events: EventsConfig, slate_offset: int, event_offset: int):
        self._reader = reader
        self._positive = {name for name, about in events.types.items() if about.weight > 0}
        self.slate_offset, self.event_offset = slate_offset, event_offset
        self.slates: Counter[Key] = Counter()
        self._seen: dict[str, set[int]] = {}
        self._open: dict[str, FirstSlate] = {}  # by recommendation id
        self._queue: deque[tuple[str, Key]] = deque()
        self._early: OrderedDict[str, set[str]] = OrderedDict()

    def read(self, windows: Mapping[str, float], now: float) -> None:
        """Read what has been stored since the last call; `now` in seconds."""
        for _ in range(PAGES):
            if self._read_slates(windows, now) < PAGE:
                break
        for _ in range(PAGES):
            if self._read_events() < EVENTS:
                break

    def _read_slates(self, windows: Mapping[str, float], now: float) -> int:
        rows = self._reader.read_impressions(self.slate_offset, PAGE)
        count = 0
        for i, offset in enumerate(rows["offset"]):
            if offset == self.slate_offset:
                continue  # another item of the same slate
            self.slate_offset, count = offset, count + 1
            if rows["arms"][i] is not None and not is_batch(rows["gateway"][i]):
                self._open_slate({name: rows[name][i] for name in SLATE}, windows, now)
        return count

    def _open_slate(self, slate: Mapping[str, str | None], windows: Mapping[str, float], now: float) -> None:
        arms, stopped, units = (json.loads(slate[name] or "{}") for name in ("arms", "stopped", "units"))
        for key in arms.items():
            experiment = key[0]
            if experiment not in windows or experiment in stopped:
                continue
            self.slates[key] += 1
            unit = units.get(experiment, slate["user_id"])
            seen = self._seen.setdefault(experiment, set())
            if unit is None or len(seen) >= MAX_UNITS or hash_text(unit) in seen:
                continue
            seen.add(hash_text(unit))
            name = str(slate["recommendation_id"])
            first = self._open.setdefault(name, FirstSlate([], self._early.pop(name, set())))
            first.keys.append(key)
            first.until[key] = now + windows[experiment]
            self._queue.append((name, key))

    def _read_events(self) -> int:
        events = self._reader.scan(self.event_offset, EVENTS)
        for name, kind in zip(events["recommendation_id"], events["type"], strict=True):
            if name is None:
                continue
            if name in self._open:
                self._open[name].types.add(kind)
            else:
                self._early.setdefault(name, set()).add(kind)
                if len(self._early) > EARLY:
                    self._early.popitem(last=False)
        self.event_offset = max([self.event_offset, *events["offset"][-1:]])
        return len(events["offset"])

    def take_finished(self, now: float) -> dict[Key, Finished]:
        """Return the units whose time is over."""
        finished: dict[Key, Finished] = {}
        waiting: deque[tuple[str, Key]] = deque()
        for name, key in self._queue:
            first = self._open[name]
            if first.until[key] > now:
                waiting.append((name, key))
                continue
            one = finished.setdefault(key, Finished())
            one.units += 1
            one.acted.update({*first.types, *[CLICK][: bool(first.types & self._positive)]})
            first.keys.remove(key)
            if not first.keys:
                del self._open[name]
        self._queue = waiting
        return finished

    def forget(self, experiment: str) -> None:
        """Forget the units of an experiment that has ended or begins again."""
        self._seen.pop(experiment, None)
        for key in [key for key in self.slates if key[0] == experiment]:
            del self.slates[key]
        for name, key in [one for one in self._queue if one[1][0] == experiment]:
            self._open[name].keys.remove(key)
            if not self._open[name].keys:
                del self._open[name]
        self._queue = deque(one for one in self._queue if one[1][0] != experiment)


SLATE = ("recommendation_id", "user_id", "arms", "stopped", "units")
