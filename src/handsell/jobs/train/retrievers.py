"""Fit every enabled retriever: each as one task, or on several Ray workers by the `job` of its plug-in."""

from __future__ import annotations

import pkgutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data.interactions import Interactions
from handsell.jobs.cluster import connect, is_in_process, run_tasks
from handsell.jobs.train.devices import name_device, takes_gpus
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval import registry
from handsell.retrieval.config import NeuralSource, retrievers
from handsell.retrieval.content_vectors import Content, fit_content_vectors
from handsell.retrieval.sentences import use_device


def fit_retrievers(config: Config, interactions: Path, out: Path) -> dict[str, float]:
    """Fit on the Parquet parts in `interactions`; save to out/retrievers/<name>; return the seconds by name."""
    content = out / "content"
    gpu = bool(config.retrieval["content"].text_model) and not is_in_process() and takes_gpus(config, 1)
    run_tasks(fit_content, [(config, interactions, content, name_device(gpu))], gpus=float(gpu))
    distributed = list_distributed(config)
    tasks = [(name, config, interactions, content, out) for name in config.retrieval.enabled if name not in distributed]
    seconds = dict(run_tasks(_fit_retriever, tasks, wait_s=config.jobs.wait_for_resources_s))
    sizes = CatalogSizes.load(Layout(config.state))
    for name, job in distributed.items():
        fit = pkgutil.resolve_name(job)  # only when needed: torch takes seconds and 600 MiB to import
        begun = time.monotonic()
        with connect(config.jobs.num_cpus):
            fit(config, interactions, content, sizes, out / "retrievers" / name)
        seconds[name] = round(time.monotonic() - begun, 2)
    return seconds


def list_distributed(config: Config) -> dict[str, str]:
    """Return the `job` of each enabled source that is fitted by Ray workers."""
    return {
        name: plugin.job
        for name, plugin in retrievers().items()
        if name in config.retrieval.enabled and plugin.job and _takes_workers(config, name)
    }


def _takes_workers(config: Config, name: str) -> bool:
    """Return whether a source with a `job` is fitted by it; a job on small data fits it in its own process."""
    section = config.retrieval[name]
    wants_gpu = config.jobs.use_gpu is True and isinstance(section, NeuralSource)
    return section.needs_workers or wants_gpu if is_in_process() else section.distributed


def fit_content(config: Config, interactions: Path, out: Path, device: str = "cpu") -> None:
    """Save the content vectors of every item, as of the last interaction, to the folder `out`. A Ray task.

    `device` is that of a sentence model.
    """
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    last = max((_last_time(part) for part in interactions.glob("*.parquet")), default=0)
    content = config.retrieval["content"]
    with use_device(device):
        fit_content_vectors(
            snapshot, content.embedding_size, before=last, columns=config.features.item_columns,
            text_model=content.text_model,
        ).save(out)  # fmt: skip


def _fit_retriever(name: str, config: Config, interactions: Path, content: Path, out: Path) -> tuple[str, float]:
    begun = time.monotonic()
    model = registry.fit(name, read_interactions(config, interactions), config.retrieval, Content.load(content))
    model.save(out / "retrievers" / name)
    return name, round(time.monotonic() - begun, 2)


def read_interactions(config: Config, interactions: Path) -> Interactions:
    sizes = CatalogSizes.load(Layout(config.state))
    return Interactions.read(sorted(interactions.glob("*.parquet")), sizes.users, sizes.items)


def count_positives(config: Config, interactions: Path) -> np.ndarray:
    """Return the number of positive interactions of each item, (I,); reads one part at a time."""
    items = CatalogSizes.load(Layout(config.state)).items
    counts = np.zeros(items, np.int64)
    for part in sorted(interactions.glob("*.parquet")):
        events = pq.read_table(part, columns=["item", "weight"])
        counts += np.bincount(events["item"].to_numpy()[events["weight"].to_numpy() > 0], minlength=items)
    return counts


def _last_time(part: Path) -> int:
    """Return the time of a part's latest event in µs, from the statistics of the file."""
    about = pq.read_metadata(part)
    column = about.schema.names.index("time")
    groups = (about.row_group(g).column(column).statistics for g in range(about.num_row_groups))
    return max((int(s.max) for s in groups if s is not None and s.has_min_max), default=0)
