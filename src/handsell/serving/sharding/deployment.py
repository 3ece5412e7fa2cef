"""The deployment of one shard of the candidate index; each shard is scaled by itself."""

from __future__ import annotations

from functools import partial
from typing import Any

from ray import serve

from handsell.serving.graph.deployments import STAGE


@serve.deployment(name="Shard", **STAGE)
class ShardDeployment:
    """The best items of one shard for encoded requests; holds the shard of the live bundle and of those before it."""

    def __init__(self, config: str, bundle: str, shard: int, shards: int):
        from handsell.serving.graph.bundle_watcher import StageBundles
        from handsell.serving.sharding.shard_stages import hold_shard

        self._bundles = StageBundles(config, bundle, partial(hold_shard, shard, shards))

    async def call(self, bundle: str, operation: str, *args: Any) -> Any:
        """Run an operation of the shard; raises BundleNotHeld."""
        return await self._bundles.get(bundle).call("shard", operation, *args)

    async def state(self, bundle: str) -> str:
        return self._bundles.state(bundle)
