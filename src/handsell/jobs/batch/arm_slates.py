"""Slates of a part's users, each with the bundle and the settings of the arms that the service would give the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from handsell.bundles.local_bundle import LocalBundle
from handsell.config.overlay import apply_overlay
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.errors import BundleError, TrainingError
from handsell.core.funnel import run_local
from handsell.core.hashing import derive_seed
from handsell.core.units import DAY_US
from handsell.events.merged_visitors import MergedVisitors
from handsell.events.store.interface import EventReader
from handsell.experiments.assignment import hash_units
from handsell.experiments.interleaved_slates import interleave
from handsell.experiments.state import now_us, open_states
from handsell.experiments.traffic import Participation, Traffic, Variant, find_units
from handsell.jobs.batch.batch_run import BatchRun
from handsell.jobs.batch.batch_worker import look_up_requests, open_worker

log = logging.getLogger(__name__)

MASK_CELLS = 32_000_000  # most cells of the eligibility mask in memory
MAX_BATCH = 128  # users: 128 × 1000 candidates × 60 features × 4 bytes = 31 MB


@dataclass(frozen=True, slots=True)
class ArmSlate:
    """One user's row of a batch of slates."""

    user_id: str
    recommendation_id: str
    worker: LocalBundle
    slates: Slates
    row: int
    given: Participation
    teams: tuple[str | None, ...] = ()  # arm that brought each item of an interleaved slate


class ArmSlates:
    """Makes slates for users by their arms, as of the time of a run. Sessions are in no arm."""

    def __init__(self, source: str, run: BatchRun, reader: EventReader):
        self._source, self._run, self._reader = source, run, reader
        self.worker = open_worker(source, run.bundle)
        config = self.worker.config
        states = open_states(config).read()
        self._bundles = {run.bundle: self.worker, **self._open_bundles(Traffic(config, states).bundles)}
        self._traffic = Traffic(config, states, self._bundles)
        self._merged = MergedVisitors() if self._traffic.is_empty else MergedVisitors.read(reader)
        self._variants: dict[Variant, LocalBundle] = {}

    def _open_bundles(self, bundles: set[str]) -> dict[str, LocalBundle]:
        """Open the bundles of arms; the users of one that cannot be opened get control."""
        opened = {}
        for bundle in sorted(bundles - {self._run.bundle}):
            try:
                opened[bundle] = open_worker(self._source, bundle)
            except BundleError as error:
                log.warning("bundle %s of an arm is left out: %s", bundle, error)
        return opened

    def make(self, user_ids: Sequence[str]) -> Iterator[ArmSlate]:
        """Yield the slates of users below the cap of the surface."""
        groups: dict[tuple[Variant, ...], list[tuple[str, Participation]]] = {}
        for user_id in user_ids:
            given = self._assign(user_id)
            groups.setdefault(given.makers, []).append((user_id, given))
        for makers, members in groups.items():
            workers = [self._find_worker(variant) for variant in makers]
            below = self._select_below_cap([user_id for user_id, _ in members], workers[0])
            kept = [(user_id, given) for user_id, given in members if user_id in below]
            size = int(np.clip(MASK_CELLS // max(len(workers[0].stages.snapshot), 1), 1, MAX_BATCH))
            for begin in range(0, len(kept), size):
                yield from self._make_batch(kept[begin : begin + size], makers, workers)

    def _assign(self, user_id: str) -> Participation:
        return self._traffic.assign(find_units(self._merged, user_id), self._run.surface, self._run.begun or now_us())

    def _find_worker(self, variant: Variant) -> LocalBundle:
        if variant not in self._variants:
            worker = self._bundles[variant.bundle or self._run.bundle]
            config = apply_overlay(worker.config, variant.overlay)
            self._variants[variant] = replace(
                worker, config=config, stages=worker.stages.with_config(config).with_rules()
            )
        return self._variants[variant]

    def _select_below_cap(self, user_ids: list[str], worker: LocalBundle) -> set[str]:
        """Users below the surface's cap. The run's own slates have its time and do not count."""
        run, cap = self._run, worker.config.surfaces[self._run.surface].cap
        if cap is None:
            return {*user_ids}
        since = run.time - int(cap.days * DAY_US)
        counts = self._reader.count_slates(user_ids, run.surface, since, run.time)
        return {user_id for user_id in user_ids if counts.get(user_id, 0) < cap.slates}

    def _make_batch(
        self, members: list[tuple[str, Participation]], makers: tuple[Variant, ...], workers: list[LocalBundle]
    ) -> Iterator[ArmSlate]:
        ids = [user_id for user_id, _ in members]
        names = [f"{self._run.id}-{user_id}" for user_id in ids]
        made = [self._recommend(ids, names, variant, worker) for variant, worker in zip(makers, workers, strict=True)]
        for b, (user_id, given) in enumerate(members):
            if given.interleaved is None:
                yield ArmSlate(user_id, names[b], workers[0], made[0], b, given)
                continue
            n = max(slates.item.shape[1] for slates in made)
            first, second = (slates.take(slice(b, b + 1)) for slates in made)
            merged, team = interleave(first, second, n, derive_seed(names[b]))
            teams = tuple(None if number == NONE else given.teams[number] for number in team.tolist())
            yield ArmSlate(user_id, names[b], workers[0], merged, 0, given, teams)

    def _recommend(self, ids: list[str], names: list[str], variant: Variant, worker: LocalBundle) -> Slates:
        n = worker.config.surfaces[self._run.surface].count
        requests = look_up_requests(worker, self._run.surface, self._run.time, ids, self._reader)
        slates = run_local(worker.stages.funnel.recommend(_add_units(requests, ids, names, variant), n))
        degraded = [cause for cause in slates.degraded if not cause.startswith("retriever:")]
        if degraded:
            raise TrainingError(
                f"{', '.join(degraded)} failed for bundle {variant.bundle or self._run.bundle}: see the log of this "
                "job, roll back or train again, then run it again"
            )
        return slates


def _add_units(requests: Requests, ids: list[str], names: list[str], variant: Variant) -> Requests:
    """Return the requests with what a gateway adds: hashes of the users, arms, and the seed of each slate."""
    arms = None
    if variant.arms:
        arms = np.empty(len(ids), object)
        arms[:] = [variant.arms] * len(ids)
    seed = np.array([derive_seed(name) for name in names], np.uint64)
    return replace(requests, unit=hash_units(ids), arms=arms, seed=seed)
