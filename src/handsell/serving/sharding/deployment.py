"""The deployment of one shard of the candidate index; each shard is scaled by itself."""

from __future__ import annotations

from functools import partial

from ray import serve

from handsell.config import load_config
from handsell.serving.graph.deployments import STAGE, StageDeployment
from handsell.serving.telemetry.process_telemetry import start_telemetry


@serve.deployment(name="Shard", **STAGE)
class ShardDeployment(StageDeployment):
    """The best items of one shard for encoded requests; holds the shard of the live bundle and of those before it."""

    stage = "shard"

    def __init__(self, config: str, bundle: str, shard: int, shards: int):
        from handsell.serving.graph.bundle_watcher import StageBundles
        from handsell.serving.sharding.shard_stages import hold_shard

        start_telemetry(load_config(config), f"Shard{shard}")
        self._bundles = StageBundles(config, bundle, partial(hold_shard, shard, shards))
