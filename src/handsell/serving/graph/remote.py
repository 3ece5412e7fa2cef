"""Stages and log behind Serve handles, with the contract that they have in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from handsell.core.batches import Candidates, Requests, Slates
from handsell.events.log import AppendResult, EventLogError
from handsell.serving.telemetry.feature_log import Sample


async def call(handle: DeploymentHandle, method: str, *args: Any) -> Any:
    """One call by value (twice as fast as by reference for batches of this size).

    A replica that dies takes its calls along; stages and log are idempotent, so it is tried once more.
    """
    remote = handle.options(
        method_name=method, _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )
    try:
        return await remote.remote(*args)
    except RayActorError:
        return await remote.remote(*args)


@dataclass(frozen=True, slots=True)
class RemoteStages:
    """The graph topology; `bundle` stamps every hop."""

    bundle: str
    candidates_at: DeploymentHandle
    ranking_at: DeploymentHandle
    reranking_at: DeploymentHandle

    async def states(self) -> dict[str, str]:
        at = {"candidates": self.candidates_at, "ranking": self.ranking_at, "reranking": self.reranking_at}
        states = await asyncio.gather(*(call(handle, "state", self.bundle) for handle in at.values()))
        return dict(zip(at, states, strict=True))

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        return await call(self.candidates_at, "candidates", self.bundle, requests, k)

    async def given(self, requests: Requests, items: np.ndarray) -> Candidates:
        return await call(self.candidates_at, "given", self.bundle, requests, items)

    async def rank(self, requests: Requests, found: Candidates, k: int, samples: Sequence[Sample]) -> Candidates:
        return await call(self.ranking_at, "rank", self.bundle, requests, found, k, samples)

    async def rerank(self, requests: Requests, ranked: Candidates, n: int) -> Slates:
        return await call(self.reranking_at, "rerank", self.bundle, requests, ranked, n)

    async def candidate_story(self, requests: Requests, item: int, k: int) -> Any:
        return await call(self.candidates_at, "candidate_story", self.bundle, requests, item, k)

    async def ranking_story(self, requests: Requests, found: Candidates, item: int, k: int) -> Any:
        return await call(self.ranking_at, "ranking_story", self.bundle, requests, found, item, k)

    async def reranking_story(self, requests: Requests, ranked: Candidates, item: int) -> Any:
        return await call(self.reranking_at, "reranking_story", self.bundle, requests, ranked, item)


@dataclass(frozen=True, slots=True)
class RemoteLog:
    """Whatever keeps an append from being acknowledged is an EventLogError here."""

    writer: DeploymentHandle

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        return await self._call("append", events)

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await self._call("append_slates", slates)

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await self._call("put_blocks", user_id, creators, tags)

    async def _call(self, method: str, *args: Any) -> AppendResult:
        try:
            return await call(self.writer, method, *args)
        except EventLogError:
            raise
        except Exception as error:
            raise EventLogError(f"the event log's writer did not answer: {error!r}") from error
