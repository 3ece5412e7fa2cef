"""The Serve application, `import_path: handsell.serving.http.app:build` in deployments/serve/*.yaml.

    serve deploy deployments/serve/graph.yaml        # or serve run, or `handsell serve CONFIG`

The file sets CPUs and autoscaling of each deployment by its name: Gateway, Candidates, Ranking, Reranking, EventLog,
StreamProcessor, ExperimentGuard, and with `retrieval.shards` above 1 also Shard0, Shard1, ….
"""

# no `from __future__ import annotations`: Serve reads the argument's class from the signature of `build`
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application
from ray.serve.context import _get_global_client

from handsell.access.exposure import INGRESS_HOST, find_exposure
from handsell.config import Config, load_config, shipped_root
from handsell.core.errors import ConfigError
from handsell.events.store.opening import has_one_writer
from handsell.serving.graph.deployments import STAGE_DEPLOYMENTS, EventLogDeployment
from handsell.serving.graph.gateway import Gateway, feast_store
from handsell.serving.graph.loading import resolve_bundle_id
from handsell.serving.guard_rails.deployment import ExperimentGuardDeployment
from handsell.serving.sharding.deployment import ShardDeployment
from handsell.serving.stream.deployment import StreamProcessorDeployment


class AppArgs(BaseModel):
    """The `args` of the application in a Serve file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: str = Field(description="the deployment's TOML file, an absolute path on the cluster's machines")
    topology: Literal["graph", "fused"] = Field(
        "graph", description="stages in deployments of their own, or all in each gateway"
    )
    event_log: bool = Field(
        True,
        description="deploy EventLog, the one writer of a SQLite event store; PostgreSQL needs none",
    )
    bundle: str = Field("live", description="live (the promoted bundle, also after a promotion) or a bundle id")
    awaits_bundle: bool = Field(
        False, description="start also where no bundle is live yet: replicas then wait for the first one"
    )


def build(args: AppArgs) -> Application:
    """Bind the deployments of a topology; raises ConfigError or BundleError before anything is started."""
    return compose(args)


def compose(args: AppArgs, open_store: Callable[[Config], Any] = feast_store) -> Application:
    """`build` with another feature store."""
    config = load_config(locate_config(args.config))
    if exposed := find_exposure(config.access, find_host() or config.serving.host):
        raise ConfigError(exposed)
    if not args.awaits_bundle:
        resolve_bundle_id(config, args.bundle)  # raises before anything is started
    source, bundle = str(config.source), args.bundle
    if not args.event_log and has_one_writer(config):
        raise ConfigError("args.event_log: expected true for an event store in SQLite, got false: EventLog writes it")
    log = bind(EventLogDeployment, source) if args.event_log else None
    processor = bind(StreamProcessorDeployment, source, log, open_store)
    guard = bind(ExperimentGuardDeployment, source)
    stages = None
    if args.topology == "graph":
        stages = {stage: bind(deployment, source, bundle) for stage, deployment in STAGE_DEPLOYMENTS.items()}
        if (count := config.retrieval.shards) > 1:
            shards = [bind(name_shard(shard), source, bundle, shard, count) for shard in range(count)]
            stages["candidates"] = bind(STAGE_DEPLOYMENTS["candidates"], source, bundle, shards)
    return bind(Gateway, source, bundle, log, stages, open_store, processor, guard)


def find_host() -> str | None:
    """Return the address at which this cluster is reached, which its config alone need not say; None without."""
    if host := os.environ.get(INGRESS_HOST):  # of the HAProxy in front of it
        return host
    client = _get_global_client(raise_if_no_controller_running=False) if ray.is_initialized() else None
    return None if client is None else client.http_config.host


def name_shard(shard: int) -> Any:
    """Return the deployment of a shard, `Shard0`, `Shard1`, …, by which a Serve file scales it."""
    return ShardDeployment.options(name=f"Shard{shard}")  # type: ignore[attr-defined]


def bind(deployment: Any, *args: Any) -> Application:
    """Call `deployment.bind`, which type checkers do not know of a decorated class."""
    return deployment.bind(*args)


def locate_config(config: str) -> Path:
    """Resolve a relative path in the working directory of the cluster's processes, else among the shipped files."""
    path = Path(config).expanduser()
    shipped = shipped_root() / path
    return shipped if not path.exists() and shipped.exists() else path
