"""The stages of a bundle on its live catalog: rebuilt for each version of it, which a call keeps to its end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Ragged, Requests
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage
from handsell.events.live_catalog import LiveCatalog
from handsell.serving.graph.stages import LocalStages, Operation
from handsell.serving.live.stage_variants import StageVariants

log = logging.getLogger(__name__)
Batch = TypeVar("Batch", Requests, Candidates)

READ_WAIT_S = 0.5  # for changes that a call needs and this process has not read


class LiveStages:
    """Stages in this process that follow the catalog's changes.

    A call may hold numbers of items, creators or tags that another process has read from the store and this one has
    not: they are read at once, or left out where that fails. Requests with changed settings get stages that have them.
    """

    def __init__(self, stages: LocalStages, catalog: LiveCatalog, config: Config):
        self._catalog, self._variants = catalog, StageVariants(config)
        self._current: tuple[Snapshot, LocalStages] = catalog.snapshot, stages
        self._known: tuple[Any, Snapshot] = None, catalog.snapshot  # what a former stage has passed on
        catalog.subscribe(self._follow)

    def _follow(self, snapshot: Snapshot) -> None:
        before, stages = self._current
        if snapshot is not before or snapshot is not snapshot.base:
            self._current = snapshot, stages.with_snapshot(snapshot)

    @property
    def candidates(self) -> CandidateStage | None:
        return self._current[1].candidates

    @property
    def ranking(self) -> RankingStage | None:
        return self._current[1].ranking

    @property
    def reranking(self) -> RerankingStage | None:
        return self._current[1].reranking

    async def call(self, stage: str, operation: Operation, *args: Any) -> Any:
        snapshot, stages = self._current
        if not all(self._is_known(arg, snapshot) for arg in args):
            await read_now(self._catalog)
            snapshot, stages = self._current
            args = tuple(leave_out_unknown(arg, snapshot) for arg in args)
        if isinstance(args[0], Requests) and args[0].overlay:
            stages = self._variants.find(stage, args[0].overlay, stages)
        return await stages.call(stage, operation, *args)

    def _is_known(self, arg: Any, snapshot: Snapshot) -> bool:
        """Return `is_known(arg, snapshot)`; requests that go to all stages are looked at once."""
        known = self._known
        if arg is known[0] and snapshot is known[1]:
            return True
        if not is_known(arg, snapshot):
            return False
        if isinstance(arg, Requests):
            self._known = arg, snapshot
        return True

    async def states(self) -> dict[str, str]:
        return {}


async def read_now(catalog: LiveCatalog) -> None:
    """Read the catalog's changes without waiting for the next turn; a failure is logged."""
    try:
        await asyncio.wait_for(asyncio.to_thread(catalog.read), READ_WAIT_S)
    except Exception as error:
        log.warning("catalog changes that a request needs cannot be read: %r", error)


def is_known(batch: Any, snapshot: Snapshot) -> bool:
    """Return whether the snapshot has all items, creators and tags of a batch; other arguments are known."""
    items = len(snapshot)
    if isinstance(batch, Candidates):
        return _is_below(batch.item, items)
    if isinstance(batch, np.ndarray):  # a caller's own items
        return _is_below(batch, items)
    if not isinstance(batch, Requests):
        return True
    exclusions, profile = batch.exclusions, batch.profile
    of_items = [batch.history.item, batch.seen.item.values, batch.exclude.values]
    creators, tags = [profile.creator], [profile.tag]
    if exclusions is not None:
        of_items += [exclusions.shown.values, exclusions.capped.values]
        of_items += [exclusions.ignored.values] if exclusions.ignored is not None else []
        creators.append(exclusions.creator.values)
        tags.append(exclusions.tag.values)
    return (
        all(_is_below(array, items) for array in of_items)
        and all(_is_below(array, len(snapshot.creators)) for array in creators)
        and all(_is_below(array, len(snapshot.tags)) for array in tags)
    )


def _is_below(numbers: np.ndarray, size: int) -> bool:
    return not numbers.size or int(numbers.max()) < size


def leave_out_unknown(batch: Any, snapshot: Snapshot) -> Any:
    """Return the batch without items, creators and tags that the snapshot lacks."""
    if is_known(batch, snapshot):
        return batch
    items, creators, tags = len(snapshot), len(snapshot.creators), len(snapshot.tags)
    if isinstance(batch, np.ndarray):
        return np.where(batch < items, batch, NONE)
    if isinstance(batch, Candidates):
        return _drop_candidates(batch, items)
    past, profile, exclusions = batch.history, batch.profile, batch.exclusions
    unknown = past.item >= items
    history = replace(
        past,
        item=np.where(unknown, NONE, past.item),
        type=np.where(unknown, NONE, past.type),
        time=np.where(unknown, 0, past.time),
        weight=np.where(unknown, 0, past.weight),
    )
    if exclusions is not None:
        most = {"shown": items, "capped": items, "creator": creators, "tag": tags}
        exclusions = replace(exclusions, **{name: _below(getattr(exclusions, name), n) for name, n in most.items()})
        if exclusions.ignored is not None and exclusions.ignored_times is not None:
            known = exclusions.ignored.values < items
            times = exclusions.ignored_times.where(known)
            exclusions = replace(exclusions, ignored=exclusions.ignored.where(known), ignored_times=times)
    kept = batch.seen.item.values < items
    return replace(
        batch,
        history=history,
        seen=replace(batch.seen, item=batch.seen.item.where(kept), time=batch.seen.time.where(kept)),
        exclude=_below(batch.exclude, items),
        exclusions=exclusions,
        profile=replace(
            profile,
            creator=np.where(profile.creator < creators, profile.creator, NONE),
            creator_weight=np.where(profile.creator < creators, profile.creator_weight, 0),
            tag=np.where(profile.tag < tags, profile.tag, NONE),
            tag_weight=np.where(profile.tag < tags, profile.tag_weight, 0),
        ),
    )


def _below(rows: Ragged, size: int) -> Ragged:
    return rows.where(rows.values < size)


def _drop_candidates(batch: Candidates, items: int) -> Candidates:
    """Return the candidates with unknown items moved to the end, as padding."""
    unknown = batch.item >= items
    moved = batch.reorder(np.argsort(unknown | (batch.item == NONE), axis=1, kind="stable"))
    gone = moved.item >= items
    return replace(
        moved,
        item=np.where(gone, NONE, moved.item),
        fused=np.where(gone, 0, moved.fused),
        score=np.where(gone, 0, moved.score),
        source_score=np.where(gone[:, :, None], np.nan, moved.source_score),
        source_rank=np.where(gone[:, :, None], np.nan, moved.source_rank),
    )
