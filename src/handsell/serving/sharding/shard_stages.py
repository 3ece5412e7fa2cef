"""One shard of a bundle as its deployment holds it, and the candidate stage that asks all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from ray.serve.handle import DeploymentHandle

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import apply_choices, load_candidates
from handsell.config import Config, load_config
from handsell.config.overlay import apply_overlay
from handsell.core.batches import Requests
from handsell.core.errors import BundleError
from handsell.retrieval.sharding.shard_search import ShardSearch
from handsell.retrieval.sharding.sharded_index import FOLDER
from handsell.retrieval.sharding.sharded_stage import ShardedCandidates
from handsell.serving.graph.bundle_watcher import HeldBundle
from handsell.serving.graph.loading import OpenedBundle, await_bundle
from handsell.serving.graph.remote import StageChannel, open_channel
from handsell.serving.graph.stages import LocalStages
from handsell.serving.sharding.shard_client import RemoteShards

VARIANTS = 64  # changed settings of experiments' arms


class ShardStages:
    """A shard that answers with the settings that the requests name."""

    def __init__(self, search: ShardSearch, config: Config):
        def change(overlay: str) -> ShardSearch:
            return search.with_config(apply_overlay(config, overlay)) if overlay else search

        self._find = lru_cache(VARIANTS)(change)

    async def call(self, stage: str, operation: str, requests: Requests, *args: Any) -> Any:
        return await getattr(self._find(requests.overlay), operation)(requests, *args)


def hold_shard(shard: int, shards: int, config_path: str, bundle: str) -> HeldBundle:
    """Load one shard of a bundle and check its own files; raises BundleError, also for another number of shards."""
    config = load_config(config_path)
    store = open_bundles(config, keeps_last=True)
    bundle = await_bundle(config, bundle)
    manifest, path = store.verify_part(bundle, FOLDER.format(shard), partial(is_read_by_shard, shard))
    check_shards(manifest, shards)
    config = apply_choices(config, path)
    search = ShardSearch.load(path, config, shard, shards).warm_up()
    return HeldBundle(manifest.id, config, ShardStages(search, config))


def is_read_by_shard(shard: int, file: str) -> bool:
    """Return whether a shard reads a file of the bundle."""
    return f"/{FOLDER.format(shard)}/" in file or file == "config.json"


def check_shards(manifest: Manifest, shards: int) -> None:
    """Raise BundleError where a bundle does not have as many shards as the service."""
    if manifest.shards != shards:
        raise BundleError(
            f"bundle {manifest.id} has {manifest.shards} shards, this service has {shards}: train a bundle with "
            f"retrieval.shards = {shards}, or set retrieval.shards = {manifest.shards} and deploy the service again"
        )


def load_stage_over(shards: Sequence[DeploymentHandle]) -> Callable[[OpenedBundle], LocalStages]:
    """Return the function that loads the candidate stage of a bundle whose shards are these deployments."""

    channels: list[StageChannel] = []

    def load(opened: OpenedBundle) -> LocalStages:
        if not channels:
            channels.extend(open_channel(shard, opened.config) for shard in shards)
        check_shards(opened.manifest, len(shards))
        local = load_candidates(opened.path, opened.config, opened.snapshot)
        client = RemoteShards(opened.manifest.id, channels, opened.config.serving.deadline_ms / 1_000)
        nothing = np.zeros(0, np.int32)
        parts = (local.retrievers, local.eligibility, local.config, client, len(shards), nothing)
        stage = ShardedCandidates(*parts, carried=local.carried)
        return LocalStages(candidates=stage)

    return load
