"""Steps of a replica's start in a fresh interpreter: `python -m benchmarks.serving.replica_steps STAGE CONFIG`.

Prints JSON: step → [CPU s, elapsed s]. Imports nothing before the first step but the standard library.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

Steps = dict[str, tuple[float, float]]


@contextmanager
def measure(steps: Steps, name: str) -> Iterator[None]:
    cpu, begun = time.process_time(), time.perf_counter()
    yield
    steps[name] = time.process_time() - cpu, time.perf_counter() - begun


def start_stage(stage: str, config: str) -> Steps:
    """What a replica of Candidates, Ranking or Reranking does before it serves, and one more request."""
    steps: Steps = {}
    with measure(steps, "Ray and Serve"):
        from ray import serve  # noqa: F401
    with measure(steps, "own modules"):
        from handsell.serving.graph import bundle_watcher, deployments, stage_loading  # noqa: F401
    with measure(steps, "open bundle"):
        opened = bundle_watcher.open_first_bundle(config, "live")
    with measure(steps, "load models"):
        stages = getattr(stage_loading, f"load_{stage}_stage")(opened)
    with measure(steps, "warm-up"):
        bundle_watcher.warm_up(stages, opened)
    with measure(steps, "warm-up again"):
        bundle_watcher.warm_up(stages, opened)
    return steps


def start_gateway(config: str) -> Steps:
    """What a replica of Gateway does before it serves, without its calls to the stages."""
    steps: Steps = {}
    with measure(steps, "Ray and Serve"):
        from ray import serve  # noqa: F401
    with measure(steps, "own modules"):
        from handsell.serving.graph import gateway, loaded_bundle, remote, service, stage_loading  # noqa: F401
        from handsell.serving.graph.loading import check_features, open_bundle
        from handsell.serving.http import api  # noqa: F401
    with measure(steps, "open bundle"):
        opened = open_bundle(config, "live")
    with measure(steps, "Feast"):
        store = gateway.feast_store(opened.config)
        check_features(opened, store.check_contract)
    return steps


if __name__ == "__main__":
    name, path = sys.argv[1:]
    print(json.dumps(start_gateway(path) if name == "gateway" else start_stage(name, path)))
