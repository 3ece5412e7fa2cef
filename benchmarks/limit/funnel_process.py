"""A process that measures the stages of one revision's source, on demand: one line of JSON in, one out.

    python funnel_process.py CONFIG USERS        (PYTHONPATH names the source)

`{"batch": B}` runs the three stages once for every user, B requests at a time, and returns the seconds of each stage.
It reads only what older revisions have, too, so that two revisions can be measured in turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import Stages, apply_choices, load_stages
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.batches import Requests, Slates
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.store import open_store

STAGES = ("candidates", "ranking", "reranking")
SURFACE = "home"
Clocks = tuple[float, float]


def load_live(config: Config) -> Stages:
    """Load the stages of the live bundle."""
    bundles = open_bundles(config)
    live = bundles.live()
    if live is None:
        sys.exit(f"no bundle of {config.name} is live: run `make up` to train one")
    path = bundles.local_path(live)
    return load_stages(path, apply_choices(config, path))


def build_requests(stages: Stages, users: list[str], batch: int) -> list[Requests]:
    """Build the users' requests at the end of the data, `batch` at a time."""
    home, store = stages.config.surface_names.index(SURFACE), open_store(stages.config)
    found = []
    for start in range(0, len(users) - batch + 1, batch):
        rows = store.online_users(users[start : start + batch])
        now = np.full(batch, stages.snapshot.as_of)
        found.append(build_requests_from_rows(rows, stages.snapshot, stages.config, now, np.full(batch, home, np.int8)))
    return found


def sample_users(config: Config, count: int) -> list[str]:
    """Users spread evenly over the catalog, shuffled with a fixed seed."""
    users = Vocabulary.load(Layout(config.state).catalog / "users")
    numbers = np.unique(np.linspace(0, len(users) - 1, count).astype(np.int64))
    return users.ids(np.random.default_rng(1).permutation(numbers))


def read_clocks() -> Clocks:
    """CPU seconds of this process, and wall seconds."""
    return time.process_time(), time.perf_counter()


def run_stages(stages: Stages, batches: list[Requests]) -> tuple[dict[str, list[Clocks]], list[Slates]]:
    """Run the stages on each batch: CPU and wall seconds by stage and batch, and the slates."""
    funnel, count = stages.funnel, stages.config.surfaces[SURFACE].count
    took: dict[str, list[Clocks]] = {stage: [] for stage in STAGES}
    slates = []
    for requests in batches:
        clocks = [read_clocks()]
        found = run_local(funnel.candidates.candidates(requests, funnel.k))
        clocks.append(read_clocks())
        ranked = run_local(funnel.ranking.rank(requests, found, max(funnel.ranked, count)))
        clocks.append(read_clocks())
        slates.append(run_local(funnel.reranking.rerank(requests, ranked, count)))
        clocks.append(read_clocks())
        for stage, begun, ended in zip(STAGES, clocks, clocks[1:], strict=False):
            took[stage].append((ended[0] - begun[0], ended[1] - begun[1]))
    return took, slates


def digest(slates: list[Slates]) -> str:
    """Digest of the items, reasons and propensities, the same for the same slates in whatever batches."""
    found = hashlib.sha256()
    for name in ("item", "source", "reason", "reason_item", "propensity"):
        found.update(np.concatenate([getattr(batch, name) for batch in slates]).tobytes())
    return found.hexdigest()


def main() -> None:
    config = load_config(Path(sys.argv[1]))
    users, stages = sample_users(config, int(sys.argv[2])), load_live(config)
    requests: dict[int, list[Requests]] = {}
    for line in sys.stdin:
        batch = json.loads(line)["batch"]
        if batch not in requests:
            requests[batch] = build_requests(stages, users, batch)
        took, slates = run_stages(stages, requests[batch])
        answer: dict[str, Any] = {"took": took, "digest": digest(slates)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
