"""A policy that answers from a deployment in this process: its bundle, feature store and event store.

Requests are built and slates chosen by the code that serves them. What visitors do is logged in the event store, and
every `every` days the deployment is trained as `handsell train` does it. Between trainings the bundle stays as it is,
and requests fold the events that were logged since, as in the service.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from handsell.bundles.local_bundle import LocalBundle
from handsell.bundles.opening import open_bundles
from handsell.config import Config
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.errors import BundleError
from handsell.core.funnel import Funnel, run_local
from handsell.core.hashing import finalize
from handsell.core.json_files import read_json
from handsell.data.world.tables import format_user_ids
from handsell.evaluation.replay_scores import HEADLINE
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_reader, open_writer
from handsell.reranking.new_items import NewItems
from handsell.reranking.stage import LocalReranking
from handsell.simulation.behavior import Responses
from handsell.simulation.logged_rows import SURFACE, build_event_rows, build_organic_rows, build_slate_rows, name_slates
from handsell.simulation.organic import OrganicListens
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.population import Population
from handsell.simulation.released_items import ReleasedItems
from handsell.simulation.visits import Visits

BATCH = 128  # visits answered at a time
ROWS = 5_000  # of one append
POPULARITY = "popularity"

Kind = Literal["popularity", "retriever", "funnel", "inverted"]
Retrain = Callable[[Config], str]


@dataclass
class DeployedPolicy:
    """`kind` says which part of the bundle chooses.

    popularity: its popularity source · retriever: the single source of the highest NDCG@10 in its report, filled up
    with popular tracks · funnel: all stages · inverted: the funnel with the ranker's scores negated, a planted mistake.
    """

    config: Config
    population: Population
    kind: Kind
    retrain: Retrain
    every: int = 10  # days between trainings; 0: never
    follows_gate: bool = False  # answer from the live bundle; else from the newest, whether or not it was promoted
    bundle: LocalBundle = field(init=False)
    bundle_id: str = field(init=False)
    notes: list[str] = field(default_factory=list)  # outcomes of the trainings
    _released: ReleasedItems = field(init=False)
    _numbers: np.ndarray = field(init=False)  # (I,) track numbers of the catalog's items
    _new_items: NewItems | None = field(init=False, default=None)  # their impressions so far
    _logged: int = 0  # slates so far

    def __post_init__(self) -> None:
        self._released = ReleasedItems.of(self.population)
        self._open()
        self._release(0)

    def recommend(self, visits: Visits, n: int) -> SimulatedSlates:
        with closing(open_reader(self.config)) as reader:
            parts = []
            for at in range(0, len(visits), BATCH):
                some = visits.take(slice(at, at + BATCH))
                requests = self.bundle.build_requests(format_user_ids(some.user), some.time, SURFACE, reader)
                seed = finalize(some.user.astype(np.uint64)) ^ some.time.astype(np.uint64)
                parts.append(self._choose(replace(requests, seed=seed), n))
        return SimulatedSlates(*(np.concatenate([p[i] for p in parts]) for i in range(3)))

    def observe(self, visits: Visits, shown: SimulatedSlates, responses: Responses, organic: OrganicListens) -> None:
        """Log slates and events; they are durable on return."""
        slates = build_slate_rows(visits, shown, self.bundle_id, self._logged + 1)
        events = build_event_rows(visits, responses, name_slates(visits), self.config.events.types)
        events += build_organic_rows(visits, organic, name_slates(visits), self.config.events.types)
        self._logged += len(slates)
        with closing(open_writer(self.config)) as writer:
            for at in range(0, len(slates), ROWS):
                writer.append_slates(slates[at : at + ROWS]).result()
            for at in range(0, len(events), ROWS):
                writer.append(events[at : at + ROWS]).result()

    def end_day(self, day: int) -> None:
        """Release the tracks of the next day, and train where it is time."""
        last = day + 1 == self.population.days
        if self.every and (day + 1) % self.every == 0 and not last:
            self.notes.append(f"after day {day + 1}: {self.retrain(self.config)}")
            self._open()
        if not last:
            self._release(day + 1)

    def _open(self) -> None:
        store = open_bundles(self.config)
        live = store.live() if self.follows_gate else next(reversed(store.list()), None)
        if live is None:
            raise BundleError(f"{self.config.name} has no live bundle: run `handsell train {self.config.source}` first")
        self.bundle_id, self.bundle = live, LocalBundle.open(self.config, live)
        self._count_new_items()
        self._read_catalog()

    def _count_new_items(self) -> None:
        """Let new items have their share of impressions, counted by this policy's own slates."""
        stages, settings = self.bundle.stages, self.config.reranking.exploration.new_items
        if not settings.share or not isinstance(stages.reranking, LocalReranking):
            return
        if self._new_items is None:
            self._new_items = NewItems(settings, stages.snapshot, self.config.surface_names)
        self._new_items.follow(stages.snapshot)
        self.bundle.stages = replace(stages, reranking=replace(stages.reranking, new_items=self._new_items))

    def _release(self, day: int) -> None:
        """Put the tracks of a day into the catalog, and read the changes as a gateway does."""
        rows = self._released.build_rows(self.population.list_released(day))
        time = self.population.start
        changes = [CatalogChange("item", item_id, "put", row, time) for item_id, row in rows.items()]
        if changes:
            with closing(open_writer(self.config)) as writer:
                writer.append_changes(changes).result()
        self._read_catalog()

    def _read_catalog(self) -> None:
        self.bundle.read_changes()
        items = self.bundle.stages.snapshot.items
        ids = items.ids(np.arange(len(self.bundle.stages.snapshot)))
        self._numbers = np.array([int(item_id[1:]) for item_id in ids], np.int32)

    def _choose(self, requests: Requests, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return track numbers, propensities and scores, (B, n) each."""
        stages = self.bundle.stages
        if self.kind in ("popularity", "retriever"):
            item = self._retrieve(requests, n)
            found = np.where(item == NONE, NONE, self._numbers[np.maximum(item, 0)])
            return found, np.ones(item.shape, np.float32), np.zeros(item.shape, np.float32)
        funnel = stages.funnel
        if self.kind == "inverted":
            funnel = replace(funnel, ranking=_InvertedRanking(funnel))
        slates: Slates = run_local(funnel.recommend(requests, n))
        if slates.degraded:
            raise BundleError(f"bundle {self.bundle_id}: {', '.join(slates.degraded)} failed in the simulation")
        found = np.where(slates.item == NONE, NONE, self._numbers[np.maximum(slates.item, 0)])
        return found, slates.propensity, slates.score

    def _retrieve(self, requests: Requests, n: int) -> np.ndarray:
        stages = self.bundle.stages.candidates
        eligible = stages.eligibility.mask(requests)
        item, _ = stages.retrievers[POPULARITY].retrieve(requests, 2 * n, eligible)
        if self.kind == "popularity":
            return item[:, :n]
        own, _ = stages.retrievers[self.find_best_retriever()].retrieve(requests, n, eligible)
        return fill_up(own, item)

    def find_best_retriever(self) -> str:
        """Return the source of the highest NDCG@10 in the bundle's report."""
        path = open_bundles(self.config).local_path(self.bundle_id) / "report.json"
        models: dict[str, Any] = read_json(path, "train again")["models"]
        sources = self.bundle.stages.candidates.sources
        return max(sources, key=lambda name: models[name]["metrics"][HEADLINE] or 0.0)


def fill_up(item: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return lists (B, n) whose empty places hold the first of others (B, m) that they lack."""
    both = np.concatenate([item, others], axis=1)
    earlier = np.tril(np.ones((both.shape[1], both.shape[1]), bool), -1)
    repeated = ((both[:, :, None] == both[:, None, :]) & earlier).any(axis=2)
    order = np.argsort(repeated | (both == NONE), axis=1, kind="stable")
    return np.take_along_axis(both, order, 1)[:, : item.shape[1]]


@dataclass(frozen=True)
class _InvertedRanking:
    """The ranking stage of a funnel with its scores negated: the worst of its candidates come first."""

    funnel: Funnel

    async def rank(self, requests: Requests, candidates: Any, k: int) -> Any:
        every = candidates.item.shape[1]
        ranked = await self.funnel.ranking.rank(requests, candidates, every)
        worst = np.where(ranked.item == NONE, np.inf, ranked.score)
        order = np.argsort(worst, axis=1, kind="stable")[:, :k]
        chosen = ranked.reorder(order)
        return replace(chosen, score=np.where(chosen.item == NONE, 0, 1 - chosen.score).astype(np.float32))


def with_exploration(config: Config, share: float, new_share: float) -> Config:
    """Return a config that explores with these shares of draws and of impressions of new items."""
    before = config.reranking.exploration
    new_items = before.new_items.model_copy(update={"share": new_share})
    exploration = before.model_copy(update={"share": share, "new_items": new_items})
    return config.model_copy(update={"reranking": config.reranking.model_copy(update={"exploration": exploration})})
