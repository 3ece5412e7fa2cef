"""Events of simulated users in this process, from which the requests of the funnel are built without a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.events.states import Events
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.views import USER_VIEWS, build_views
from handsell.simulation.behavior import Responses
from handsell.simulation.visits import Visits

KEPT = 400  # newest events of a user that a request is built from


@dataclass
class EventBook:
    """Events by row of the population, in order of time."""

    config: Config
    snapshot: Snapshot
    tracks: np.ndarray  # (I,) catalog number of each track of the population, -1 for those that the catalog lacks
    events: dict[int, list[tuple[int, int, int, float]]] = field(default_factory=dict)  # item, type, time, weight

    def add_log(self, log: Interactions, rows: np.ndarray) -> None:
        """Add the events of a log; rows (U,) of the population by user number, -1 for users to leave out."""
        row = rows[log.user]
        for r, item, kind, time, weight in zip(
            row.tolist(), log.item.tolist(), log.type.tolist(), log.time.tolist(), log.weight.tolist(), strict=True
        ):
            if r >= 0:
                self.events.setdefault(r, []).append((item, kind, time, weight))

    def add(self, row: int, track: int, kind: str, time: int) -> None:
        names = self.config.events.names
        weight = self.config.events.types[kind].weight
        self.events.setdefault(row, []).append((int(self.tracks[track]), names.index(kind), time, weight))

    def add_responses(self, visits: Visits, found: Responses) -> None:
        """Add what visitors did with their slates."""
        kinds = {"skip": found.skipped, "listen": found.listened, "like": found.liked, "save": found.saved}
        kinds["share"] = found.shared
        for kind, done in kinds.items():
            for b, p in zip(*np.nonzero(done), strict=True):
                self.add(int(visits.row[b]), int(found.item[b, p]), kind, int(found.time[b, p]))
        for row in np.unique(visits.row).tolist():
            self.events[row] = sorted(self.events.get(row, []), key=lambda event: event[2])[-KEPT:]

    def build_requests(self, rows: Sequence[int], time: np.ndarray, surface: int = 0) -> Requests:
        columns = {name: [None] * len(rows) for view in USER_VIEWS for name in build_views(self.config)[view].names}
        parts = [(b, *event) for b, row in enumerate(rows) for event in self.events.get(row, [])]
        events = Events.of(*zip(*parts, strict=True)) if parts else Events.none()
        found = build_requests_from_rows(
            columns, self.snapshot, self.config, time, np.full(len(rows), surface, np.int8), events=events
        )
        return found


def number_tracks(snapshot: Snapshot, tracks: int) -> np.ndarray:
    """Return the catalog number of each track of the population, -1 for tracks that the catalog lacks."""
    return snapshot.items.number([f"t{i:07d}" for i in range(tracks)]).astype(np.int64)


def number_items(snapshot: Snapshot) -> np.ndarray:
    """Return the track of each item of the catalog."""
    return np.array([int(i[1:]) for i in snapshot.items.ids(np.arange(len(snapshot)))], np.int32)
