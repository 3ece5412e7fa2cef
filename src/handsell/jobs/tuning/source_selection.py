"""Candidate sources picked for the data: what could suit it is fitted, and the validation window judges.

The size of the catalog and what the tables hold say which sources come into question. Each is fitted on the retrieval
window. Sources that read the history as weighted items choose how fast its events fade and whether dislikes count;
that needs no other fit. Then the fused order of the sources grows one source at a time, as long as its NDCG@10 does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.core.paths import Layout
from handsell.data.interactions import Interactions
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import Relevant, gains, ndcg
from handsell.evaluation.replay import MASK_CELLS
from handsell.jobs.cluster import spread
from handsell.jobs.train.retrievers import fit_retrievers, read_interactions
from handsell.jobs.train.scoring import Judged, judged_requests
from handsell.jobs.train.windows import Sizes
from handsell.retrieval import registry
from handsell.retrieval.config import MAX_SOURCES, FoldInSource, retrievers
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.fusion import fuse_sources
from handsell.retrieval.models.popularity import fit_popularity

WINDOW = "validation"
MOST_REQUESTS = 1_000  # that judge the sources
DEPTH = 200  # of a source's list in the fused order that is judged
LEAST_GAIN = 0.005  # relative NDCG@10 that a source must bring
OTHER_WEIGHTS = (2.0, 0.5)  # tried for each source of the fused order once it has grown
BESIDE = 0.1  # weight in the fused order of a source that is kept for other users or items than those of the window
HALF_LIVES_DAYS = (365.0, 1e6)
POPULAR_FOR_DAYS = (30.0, 365.0, 1e6)
HALF_LIVES_EVENTS = (20.0, 10.0, 5.0, 2.0)
EXPONENTS = (0.0, 0.5)

Lists = tuple[np.ndarray, np.ndarray]  # items and scores (R, k)


@dataclass(frozen=True, slots=True)
class SourceChoice:
    """One source that came into question: whether it was picked, and why."""

    name: str
    picked: bool
    why: str
    ndcg: float | None = None  # of its own first ten
    weight: float = 0.0  # in the fused order
    history: dict[str, Any] | None = None  # how it weighs the history's events, where that was chosen


@dataclass(frozen=True, slots=True)
class SourceSelection:
    """The sources by name, and NDCG@10 of the fused order of those that were picked."""

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
        left = [source.name for source in self.sources if not source.picked and source.ndcg is not None]
        without = f"; without {', '.join(left)}" if left else ""
        return (
            f"{', '.join(self.picked)}{without}; fused NDCG@10 {self.fused:.4f} on {self.requests:,} {WINDOW} requests"
        )


def choose_sources(config: Config, run: Path, models: Path) -> tuple[Config, SourceSelection]:
    """The config with the picked sources enabled, weighted and their settings in place; they lie fitted in `models`.

    Needs run/fit and the rows of the validation window. Raises TrainingError where no validation request is left.
    """
    out_of_question = misfits(config, run)
    pool = [name for name in question(config) if name not in out_of_question]
    asked = with_sources(config, dict.fromkeys(pool, None))
    fit_retrievers(asked, run / "fit", models)
    said = tuple(name for name in pool if asked_for(config, name))
    choice = spread(judge_sources, [(asked, run, models, tuple(pool), said)])[0]
    others = tuple(SourceChoice(name, False, why) for name, why in out_of_question.items())
    choice = replace(choice, sources=(*choice.sources, *others))
    return with_sources(asked, {s.name: s for s in choice.sources if s.picked}), choice


def asked_for(config: Config, name: str) -> bool:
    """Whether the config enables a source in so many words, or a surface names it: then it is never left out."""
    return bool(config.retrieval.explicitly_enabled(name)) or any(
        name in surface.only for surface in config.surfaces.values()
    )


def question(config: Config) -> tuple[str, ...]:
    """Sources that training may pick: what the config asks for, and families whose fit is short."""
    return tuple(
        name
        for name, plugin in retrievers().items()
        if asked_for(config, name) or (plugin.auto_selectable and config.retrieval.explicitly_enabled(name) is None)
    )


def misfits(config: Config, run: Path) -> dict[str, str]:
    """Sources that are out of the question for this data, with the reason; what the config enables never is."""
    sizes = Sizes.of(Layout(config.state))
    events = sum(_rows(path) for path in (run / "fit").glob("*.parquet"))
    found = {}
    for name in question(config):
        if asked_for(config, name):
            continue
        plugin = retrievers()[name]
        if plugin.max_items is not None and sizes.items > plugin.max_items:
            found[name] = f"the catalog has {sizes.items:,} items, it is fitted up to {plugin.max_items:,}"
        elif plugin.max_users is not None and sizes.users > plugin.max_users:
            found[name] = f"there are {sizes.users:,} users, it is fitted up to {plugin.max_users:,}"
        elif events < plugin.min_events:
            found[name] = f"there are {events:,} events to learn from, it needs {plugin.min_events:,}"
        elif name == "history" and config.surfaces["home"].repeat == "exclude":
            found[name] = "seen items do not come back on the home surface"
    return found


def with_sources(config: Config, picked: Mapping[str, SourceChoice | None]) -> Config:
    """The config with exactly these sources enabled; a SourceChoice brings its weight and how it reads the history."""
    sections = {}
    for name, section in config.retrieval.sections.items():
        source = picked.get(name)
        change: dict[str, Any] = {"enabled": name in picked}
        if source is not None:
            change |= {"weight": source.weight, **(source.history or {})}
        sections[name] = section.model_copy(update=change)
    retrieval = config.retrieval.model_copy(update={"sources": "enabled", "sections": sections})
    return config.model_copy(update={"retrieval": retrieval})


def judge_sources(config: Config, run: Path, models: Path, pool: Sequence[str], said: Sequence[str]) -> SourceSelection:
    """Settings of each fitted source, and which of them the fused order needs; those in `said` stay anyway.

    A Ray task; saves changed settings.
    """
    judged = sample_of(config, run)
    eligibility = Eligibility.of(Snapshot.load(Layout(config.state).snapshot), config)
    window = Window(judged, eligibility)
    kept = kept_anyway(pool, Content.load(models / "content"))
    lists, history = {}, {}
    for name in pool:
        model = registry.load(name, models / "retrievers" / name)
        section = config.retrieval[name]
        if isinstance(section, FoldInSource):
            model, history[name] = _weigh_history(model, section, window)
            _replace(models / "retrievers" / name, model)
        elif name == "popularity" and "half_life_days" not in section.model_fields_set:
            model, history[name] = _age_popularity(model, read_interactions(config, run / "fit"), config, window)
            _replace(models / "retrievers" / name, model)
        lists[name] = window.ask(model, DEPTH)
    alone = {name: window.ndcg(found[0]) for name, found in lists.items()}
    chosen, fused, gain = grow(lists, alone, window, tuple(name for name in pool if name in kept or name in said))
    return SourceSelection(
        tuple(_told(name, alone, gain, chosen, kept, said, history) for name in pool),
        fused, len(judged.requests),
    )  # fmt: skip


@dataclass(frozen=True)
class Window:
    """The requests that judge, and what was relevant to them."""

    judged: Judged
    eligibility: Eligibility

    def ask(self, model: Any, k: int) -> Lists:
        """(R, k) items and scores of the model's own lists among what each request may be shown."""
        parts = [model.retrieve(asked, min(k, mask.shape[1]), mask) for asked, _, mask in self._chunks()]
        return np.concatenate([items for items, _ in parts]), np.concatenate([scores for _, scores in parts])

    def ndcg(self, items: np.ndarray) -> float:
        relevant = self.judged.relevant
        return float(np.nanmean(ndcg(gains(items[:, :10], relevant), relevant, 10)))

    def _chunks(self) -> Iterator[tuple[Any, Relevant, np.ndarray]]:
        step = max(1, min(256, MASK_CELLS // max(len(self.eligibility.snapshot), 1)))
        for start in range(0, len(self.judged.requests), step):
            rows = slice(start, start + step)
            asked = self.judged.requests.take(rows)
            yield asked, self.judged.relevant.take(rows), self.eligibility.mask(asked)


def sample_of(config: Config, run: Path) -> Judged:
    """Validation requests with something relevant, at most MOST_REQUESTS of them; raises TrainingError without any."""
    judged = judged_requests(config, run, WINDOW, Snapshot.load(Layout(config.state).snapshot))
    count = len(judged.requests)
    if not count:
        raise TrainingError(
            f"no request of the {WINDOW} window has an eligible item that was liked: lengthen split.validation_days "
            '(or split.validation_k), or set retrieval.sources = "enabled" to keep the sources as configured'
        )
    rows = np.sort(np.random.default_rng(0).permutation(count)[:MOST_REQUESTS])
    return Judged(judged.requests.take(rows), judged.relevant.take(rows))


def kept_anyway(pool: Sequence[str], content: Content) -> dict[str, str]:
    """Sources that the window cannot judge, for whom or what they are there."""
    kept = {"popularity": "it answers users of whom nothing is known"}
    if content.vectors.any():
        kept["content"] = "it finds items that nobody has touched yet"
    return {name: why for name, why in kept.items() if name in pool}


def grow(
    lists: Mapping[str, Lists], alone: Mapping[str, float], window: Window, must: Sequence[str]
) -> tuple[dict[str, float], float, dict[str, float]]:
    """Weights of the picked sources, NDCG@10 of their fused order, and what each brought when it was added."""
    names = list(lists)

    def fused(weights: Mapping[str, float]) -> float:
        found = fuse_sources([lists[n] for n in weights], tuple(weights), list(weights.values()), 10)
        return window.ndcg(found.item)

    first = max(must if len(must) >= MAX_SOURCES else names, key=lambda name: alone[name])
    weights, best, gain = {first: 1.0}, alone[first], {first: alone[first]}

    def left() -> list[str]:
        full = len({*weights, *must}) >= MAX_SOURCES
        return [name for name in names if name not in weights and (name in must or not full)]

    while left():
        trials = {name: fused({**weights, name: 1.0}) for name in left()}
        name = max(trials, key=trials.__getitem__)
        if trials[name] < best * (1 + LEAST_GAIN):
            break
        weights[name], gain[name], best = 1.0, trials[name] - best, trials[name]
    for name in list(weights) * (len(weights) > 1):
        for weight in OTHER_WEIGHTS:
            value = fused({**weights, name: weight})
            if value >= best * (1 + LEAST_GAIN):
                weights[name], best = weight, value
    weights |= {name: BESIDE for name in must if name not in weights}
    return weights, fused(weights), gain


def _weigh_history(model: Any, section: FoldInSource, window: Window) -> tuple[Any, dict[str, Any]]:
    """The model with the best of a few ways to weigh the history, one setting after the other."""
    free = [name for name in section.HISTORY_KEYS if name not in section.model_fields_set]
    tries = {
        "half_life_days": HALF_LIVES_DAYS,
        "half_life_events": HALF_LIVES_EVENTS,
        "dislikes": (0.0,),
        "weight_exponent": EXPONENTS,
        "repeat_exponent": EXPONENTS,
        "popularity_exponent": EXPONENTS,
    }
    best = {name: getattr(section, name) for name in section.HISTORY_KEYS}
    value = window.ndcg(window.ask(model, 10)[0])
    disliked = bool((window.judged.requests.history.weight < 0).any())
    for name in free:
        if name == "dislikes" and not disliked:
            continue
        start = best
        for other in tries[name]:
            trial = {**start, name: other}
            found = window.ndcg(window.ask(model.with_history_weights(**trial), 10)[0])
            if found > value:
                best, value = trial, found
    return model.with_history_weights(**best), {name: best[name] for name in section.HISTORY_KEYS}


def _age_popularity(model: Any, events: Interactions, config: Config, window: Window) -> tuple[Any, dict[str, Any]]:
    """The model with the best of a few half-lives: what was liked last week says nothing where a log spans years."""
    days = config.retrieval["popularity"].half_life_days
    value = window.ndcg(window.ask(model, 10)[0])
    for other in POPULAR_FOR_DAYS:
        section = config.retrieval["popularity"].model_copy(update={"half_life_days": other})
        trial = fit_popularity(events, section)
        found = window.ndcg(window.ask(trial, 10)[0])
        if found > value:
            model, days, value = trial, other, found
    return model, {"half_life_days": days}


def _told(
    name: str, alone: Mapping[str, float], gain: Mapping[str, float], chosen: Mapping[str, float],
    kept: Mapping[str, str], said: Sequence[str], history: Mapping[str, dict[str, Any]],
) -> SourceChoice:  # fmt: skip
    first = next(iter(gain))  # what the fused order grew from
    if name in gain:
        why = "the best source alone" if name == first else f"adds {gain[name]:.4f} to the fused order"
    elif name in kept:
        why = f"adds nothing to the fused order, but {kept[name]}"
    elif name in said:
        why = "the config enables it"
    elif not alone[name]:
        why = "it finds nothing on this data"
    else:
        why = f"adds less than {LEAST_GAIN:.1%} to the fused order"
    return SourceChoice(name, name in chosen, why, alone[name], chosen.get(name, 0.0), history.get(name))


def _replace(folder: Path, model: Any) -> None:
    """Save beside and swap: the model's arrays are mapped from the files that lie there."""
    fresh = folder.with_name(folder.name + ".next")
    model.save(fresh)
    shutil.rmtree(folder)
    fresh.rename(folder)


def _rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows
