"""A policy that asks a running service over HTTP, and sends it what visitors do.

The service's clock does not follow the simulated days: requests and events have its own time, days follow each other
as fast as the service answers, and listeners feel the simulated time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from handsell.core.batches import NONE
from handsell.core.errors import HandsellError
from handsell.data.world.tables import format_user_ids
from handsell.simulation.behavior import Responses
from handsell.simulation.logged_rows import SURFACE, build_event_rows, build_organic_rows
from handsell.simulation.organic import OrganicListens
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.population import Population
from handsell.simulation.released_items import ReleasedItems
from handsell.simulation.visits import Visits

THREADS = 8
EVENTS = 100  # of one request
ITEMS = 1_000
BUSY, TRIES, LONGEST_WAIT_S = 503, 30, 5.0  # an overloaded service says when to come again
SENT = ("event_id", "user_id", "item_id", "type", "value", "surface", "recommendation_id", "position")


@dataclass
class HttpPolicy:
    """Asks the service at `client`'s address for every visit."""

    client: httpx.Client
    population: Population
    types: frozenset[str]  # event types of the service
    train: Callable[[], str] | None = None  # trains the deployment of the service
    every: int = 0  # days between trainings; 0: never
    notes: list[str] = field(default_factory=list)  # outcomes of the trainings
    degraded: int = 0  # answers with a failed or late part
    unknown: int = 0  # answered items that the population does not have
    _released: ReleasedItems = field(init=False)
    _names: list[str] = field(default_factory=list)  # recommendation ids of the latest answers

    def __post_init__(self) -> None:
        self._released = ReleasedItems.of(self.population)
        self._release(0)

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        bodies = [{"user_id": user, "surface": SURFACE, "count": n} for user in format_user_ids(visits.user)]
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(lambda body: self._post("/v1/recommendations", body, 200), bodies))
        self._names = [answer["recommendation_id"] for answer in answers]
        self.degraded += sum(bool(answer["degraded"]) for answer in answers)
        item, score = np.full((len(answers), n), NONE, np.int32), np.zeros((len(answers), n), np.float32)
        for b, answer in enumerate(answers):
            for place, one in enumerate(answer["items"][:n]):
                item[b, place], score[b, place] = self._read_item(one["item_id"]), one["score"]
        return SimulatedSlates(item, np.ones(item.shape, np.float32), score)

    def observe(self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens) -> None:
        rows = build_event_rows(visits, responses, self._names, self.types)
        rows += build_organic_rows(visits, organic, self._names, self.types)
        bodies = [{name: row[name] for name in SENT if row[name] is not None} for row in rows]
        for part in _split(bodies, EVENTS):
            self._require_all("events", self._post("/v1/events", {"events": part}, 202))

    def end_day(self, day: int) -> None:
        last = day + 1 == self.population.days
        if self.train is not None and self.every and (day + 1) % self.every == 0 and not last:
            self.notes.append(f"after day {day + 1}: {self.train()}")
        if not last:
            self._release(day + 1)

    def _release(self, day: int) -> None:
        rows = self._released.build_rows(self.population.list_released(day))
        bodies = [
            {"item_id": item_id, **{name: value for name, value in row.items() if name != "published_at"}}
            for item_id, row in rows.items()  # published now: the service's clock has not reached the simulated day
        ]
        for part in _split(bodies, ITEMS):
            self._require_all("items", self._post("/v1/items", {"items": part}, 200))

    def _read_item(self, item_id: str) -> int:
        number = int(item_id[1:]) if item_id[:1] == "t" and item_id[1:].isdecimal() else NONE
        if not 0 <= number < len(self.population.tracks):
            self.unknown += 1
            return NONE
        return number

    def _require_all(self, what: str, answer: dict[str, Any]) -> None:
        if answer["rejected"]:
            raise HandsellError(
                f"{self._url} rejected simulated {what}, {answer['rejected'][:3]}: use the config of the service"
            )

    @property
    def _url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def _post(self, path: str, body: dict[str, Any], expected: int) -> dict[str, Any]:
        """Post until the service is not overloaded; raises HandsellError for anything but the expected status."""
        for _ in range(TRIES):
            try:
                response = self.client.post(path, json=body)
            except httpx.HTTPError as error:
                raise HandsellError(
                    f"the service at {self._url} does not answer ({error!r}): start it with `handsell up CONFIG`"
                ) from None
            if response.status_code != BUSY:
                break
            time.sleep(min(float(response.headers.get("retry-after", 1)), LONGEST_WAIT_S))
        if response.status_code != expected:
            raise HandsellError(
                f"expected status {expected} from {self._url}{path}, got {response.status_code}: {response.text[:300]}"
            )
        return response.json()


def _split(bodies: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for at in range(0, len(bodies), size):
        yield bodies[at : at + size]
