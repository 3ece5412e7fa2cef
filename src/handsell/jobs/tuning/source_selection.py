"""Selection of candidate sources: those that suit the data are fitted, and compared on the validation window.

The config, the size of the catalog and the number of events say which sources are fitted on the retrieval window.
Sources that read the history as weighted items then choose their settings (history_settings.py), and the fused order
grows by one source at a time (fusion_weights.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.retrievers import fit_retrievers, read_interactions
from handsell.jobs.train.windows import CatalogSizes
from handsell.jobs.tuning.fusion_weights import MIN_GAIN, FusionWeights, grow_fusion
from handsell.jobs.tuning.history_settings import choose_history_settings, choose_popularity_half_life
from handsell.jobs.tuning.validation_window import WINDOW, ValidationWindow
from handsell.retrieval import registry
from handsell.retrieval.config import FoldInSource, retrievers
from handsell.retrieval.content_vectors import Content

MAX_REQUESTS = 1_000  # on which sources are compared
DEPTH = 200  # length of a source's list in the fused order that is compared


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """A source that was considered: whether it was picked, and why."""

    name: str
    picked: bool
    why: str
    ndcg: float | None = None  # NDCG@10 of its own list; None if it was not fitted
    weight: float = 0.0  # in the fused order
    history: dict[str, Any] | None = None  # settings for weighing the history, where they were chosen


@dataclass(frozen=True, slots=True)
class SourceSelection:
    """All sources that were considered, and NDCG@10 of the fused order of those that were picked."""

    sources: tuple[SourceChoice, ...]
    fused: float
    requests: int

    @property
    def picked(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.sources if source.picked)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {"window": WINDOW, "requests": self.requests, "fused": self.fused,
                "sources": [asdict(source) for source in self.sources]}  # fmt: skip

    def __str__(self) -> str:
        dropped = [source.name for source in self.sources if not source.picked and source.ndcg is not None]
        without = f"; without {', '.join(dropped)}" if dropped else ""
        return (
            f"{', '.join(self.picked)}{without}; fused NDCG@10 {self.fused:.4f} on {self.requests:,} {WINDOW} requests"
        )


def select_sources(config: Config, run: Path, models: Path) -> tuple[Config, SourceSelection]:
    """Fit the selectable sources to `models`; return the config with the picked ones enabled, weighted and set.

    Needs fit/ and the rows of the validation window in the folder `run`. Raises TrainingError if that window has no
    request with a relevant item.
    """
    unsuitable = find_unsuitable_sources(config, run)
    pool = tuple(name for name in list_selectable_sources(config) if name not in unsuitable)
    fitted = with_sources(config, dict.fromkeys(pool, None))
    fit_retrievers(fitted, run / "fit", models)
    required = tuple(name for name in pool if is_required(config, name))
    selection = run_tasks(compare_sources, [(fitted, run, models, pool, required)])[0]
    others = tuple(SourceChoice(name, False, why) for name, why in unsuitable.items())
    selection = replace(selection, sources=(*selection.sources, *others))
    return with_sources(fitted, {s.name: s for s in selection.sources if s.picked}), selection


def is_required(config: Config, name: str) -> bool:
    """Return whether the config enables a source explicitly, or a surface names it: then it is always picked."""
    return bool(config.retrieval.explicitly_enabled(name)) or any(
        name in surface.only for surface in config.surfaces.values()
    )


def list_selectable_sources(config: Config) -> tuple[str, ...]:
    """Return the required sources and those that plug-ins declare selectable, unless the config disables them."""
    return tuple(
        name
        for name, plugin in retrievers().items()
        if is_required(config, name) or (plugin.auto_selectable and config.retrieval.explicitly_enabled(name) is None)
    )


def find_unsuitable_sources(config: Config, run: Path) -> dict[str, str]:
    """Return the selectable sources that do not suit the data, with the reason; a required source always suits."""
    sizes = CatalogSizes.load(Layout(config.state))
    events = sum(pq.read_metadata(path).num_rows for path in (run / "fit").glob("*.parquet"))
    found = {}
    for name in list_selectable_sources(config):
        if is_required(config, name):
            continue
        plugin = retrievers()[name]
        if plugin.max_items is not None and sizes.items > plugin.max_items:
            found[name] = f"the catalog has {sizes.items:,} items, it is fitted up to {plugin.max_items:,}"
        elif plugin.max_users is not None and sizes.users > plugin.max_users:
            found[name] = f"there are {sizes.users:,} users, it is fitted up to {plugin.max_users:,}"
        elif events < plugin.min_events:
            found[name] = f"there are {events:,} events to learn from, it needs {plugin.min_events:,}"
        elif name == "history" and config.surfaces["home"].repeat == "exclude":
            found[name] = "the home surface excludes items that the user has seen"
    return found


def with_sources(config: Config, picked: Mapping[str, SourceChoice | None]) -> Config:
    """Return the config with exactly these sources enabled; a SourceChoice sets the weight and the history settings."""
    sections = {}
    for name, section in config.retrieval.sections.items():
        source = picked.get(name)
        change: dict[str, Any] = {"enabled": name in picked}
        if source is not None:
            change |= {"weight": source.weight, **(source.history or {})}
        sections[name] = section.model_copy(update=change)
    retrieval = config.retrieval.model_copy(update={"sources": "enabled", "sections": sections})
    return config.model_copy(update={"retrieval": retrieval})


def compare_sources(
    config: Config, run: Path, models: Path, pool: Sequence[str], required: Sequence[str]
) -> SourceSelection:
    """Choose the settings of each fitted source, and the sources of the fused order. A Ray task; saves the settings."""
    window = ValidationWindow.load(config, run, 'set retrieval.sources = "enabled" to keep the sources as configured')
    window = replace(window, evaluation=window.evaluation.sample(MAX_REQUESTS))
    kept = _list_kept_sources(pool, Content.load(models / "content"))
    lists, history = {}, {}
    for name in pool:
        path, section = models / "retrievers" / name, config.retrieval[name]
        model = registry.load(name, path)
        if isinstance(section, FoldInSource):
            model, history[name] = choose_history_settings(model, section, window)
            _replace_model(path, model)
        elif name == "popularity" and "half_life_days" not in section.model_fields_set:
            events = read_interactions(config, run / "fit")
            model, history[name] = choose_popularity_half_life(model, events, config, window)
            _replace_model(path, model)
        lists[name] = window.retrieve(model, DEPTH)
    alone = {name: window.ndcg(items) for name, (items, _) in lists.items()}
    fusion = grow_fusion(lists, alone, window, tuple(name for name in pool if name in kept or name in required))
    choices = (
        SourceChoice(
            name, name in fusion.weights, _explain_choice(name, alone, fusion, kept, required), alone[name],
            fusion.weights.get(name, 0.0), history.get(name),
        )
        for name in pool
    )  # fmt: skip
    return SourceSelection(tuple(choices), fusion.ndcg, len(window.evaluation))


def _list_kept_sources(pool: Sequence[str], content: Content) -> dict[str, str]:
    """Return the sources that are kept for requests outside the window, with the reason."""
    kept = {"popularity": "it serves users without a history"}
    if content.vectors.any():
        kept["content"] = "it finds items without interactions"
    return {name: why for name, why in kept.items() if name in pool}


def _explain_choice(
    name: str, alone: Mapping[str, float], fusion: FusionWeights, kept: Mapping[str, str], required: Sequence[str]
) -> str:
    if name in fusion.gain:
        is_first = name == next(iter(fusion.gain))
        return "the best source alone" if is_first else f"adds {fusion.gain[name]:.4f} to the fused order"
    if name in kept:
        return f"adds nothing to the fused order, but {kept[name]}"
    if name in required:
        return "the config enables it"
    if not alone[name]:
        return "it finds nothing on this data"
    return f"adds less than {MIN_GAIN:.1%} to the fused order"


def _replace_model(folder: Path, model: Any) -> None:
    """Save a loaded model with other settings in its own folder, whose files its arrays are mapped from."""
    new = folder.with_name(folder.name + ".next")
    model.save(new)
    shutil.rmtree(folder)
    new.rename(folder)
