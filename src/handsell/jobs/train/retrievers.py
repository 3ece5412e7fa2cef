"""Fit every enabled retriever: sparse and linear ones as Ray tasks (ALS as many, if told so), towers by Ray Train."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data.interactions import Interactions
from handsell.jobs.cluster import spread
from handsell.jobs.train.als import fit_als_on_ray
from handsell.jobs.train.windows import Sizes
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.retrieval.content_vectors import Content, fit_content_vectors


def fit_retrievers(config: Config, interactions: Path, out: Path) -> dict[str, float]:
    """Fit on the Parquet parts in `interactions`; saves out/retrievers/<name>; returns seconds by name."""
    names = config.retrieval.enabled
    content = out / "content"
    spread(save_content, [(config, interactions, content)])
    apart = {name: job for name in names if (job := retrievers()[name].job)}  # with workers of their own
    blocks = "als" in names and config.retrieval["als"].blocks > 1  # tasks of their own
    tasks = [
        (name, config, interactions, content, out)
        for name in names
        if name not in apart and not (blocks and name == "als")
    ]
    seconds = dict(spread(_fit_one, tasks, wait_s=config.jobs.wait_for_resources_s))
    sizes = Sizes.of(Layout(config.state))
    if blocks:
        seconds["als"] = fit_als_on_ray(config, interactions, sizes, out / "retrievers" / "als")
    for name, job in apart.items():
        # resolved when it is called for: torch costs a second and 200 MiB in each worker, most of which do without
        fit = pkgutil.resolve_name(job)
        seconds[name] = fit(config, interactions, content, sizes, out / "retrievers" / name)
    return seconds


def save_content(config: Config, interactions: Path, out: Path) -> None:
    """Vectors of every item as of the last of the interactions, in the folder `out`. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    last = max((_last_time(part) for part in interactions.glob("*.parquet")), default=0)
    content = config.retrieval["content"]
    fit_content_vectors(
        snapshot, content.embedding_size, before=last, columns=config.features.item_columns,
        text_model=content.text_model,
    ).save(out)  # fmt: skip


def _fit_one(name: str, config: Config, interactions: Path, content: Path, out: Path) -> tuple[str, float]:
    import time

    begun = time.monotonic()
    model = registry.fit(name, read_interactions(config, interactions), config.retrieval, Content.load(content))
    model.save(out / "retrievers" / name)
    return name, round(time.monotonic() - begun, 2)


def read_interactions(config: Config, interactions: Path) -> Interactions:
    sizes = Sizes.of(Layout(config.state))
    return Interactions.read(sorted(interactions.glob("*.parquet")), sizes.users, sizes.items)


def popularity_counts(config: Config, interactions: Path) -> np.ndarray:
    """(I,) positive interactions of each item in the fit window."""
    events = read_interactions(config, interactions).positives
    return np.bincount(events.item, minlength=events.n_items)


def _last_time(part: Path) -> int:
    """µs of a part's latest event, from the file's statistics."""
    about = pq.read_metadata(part)
    column = about.schema.names.index("time")
    groups = (about.row_group(g).column(column).statistics for g in range(about.num_row_groups))
    return max((int(s.max) for s in groups if s is not None and s.has_min_max), default=0)
