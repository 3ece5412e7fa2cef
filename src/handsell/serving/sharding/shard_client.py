"""Calls of the candidate stage to the shards of one bundle, each behind a circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ray.serve.handle import DeploymentHandle

from handsell.core.batches import Requests
from handsell.retrieval.sharding.shard_search import ShardQuery
from handsell.retrieval.sharding.sharded_index import Found
from handsell.serving.graph.bundle_watcher import HELD, LOADING
from handsell.serving.graph.circuit_breaker import Breaker
from handsell.serving.graph.remote import StageChannel, call
from handsell.serving.sockets.messages import allow

allow(ShardQuery)

SHARD_SHARE = 0.2  # of the service's deadline that a shard may take; a stage may take STALL, which is more
STATE_WAIT_S = 1.0


class RemoteShards:
    """Shards in separate deployments; every call names the bundle."""

    def __init__(self, bundle: str, channels: Sequence[StageChannel], deadline_s: float):
        self._bundle, self._channels, self._wait_s = bundle, channels, SHARD_SHARE * deadline_s
        self._breakers = [Breaker(f"shard {shard}", self._wait_s) for shard in range(len(channels))]

    async def search(self, shard: int, requests: Requests, asked: Mapping[str, ShardQuery]) -> dict[str, Found]:
        """Return what a shard found; raises TimeoutError when it is late, and BundleNotHeld."""
        limit = asyncio.get_running_loop().time() + self._wait_s
        channel = self._channels[shard]
        return await self._breakers[shard].wait(lambda: channel.call(self._bundle, "search", requests, asked), limit)


async def read_shard_states(bundle: str, handles: Sequence[DeploymentHandle]) -> str:
    """Return HELD where every shard that answers holds the bundle, LOADING, or why one cannot load it."""

    async def read_state(handle: DeploymentHandle) -> str:
        try:
            async with asyncio.timeout(STATE_WAIT_S):
                return await call(handle, "state", bundle)
        except Exception:  # a dead shard is left out of answers, too: it must not stop a promotion
            return HELD

    states = await asyncio.gather(*map(read_state, handles))
    return next((state for state in states if state not in (HELD, LOADING)), LOADING if LOADING in states else HELD)
