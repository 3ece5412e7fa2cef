"""Check definitions of experiments against the rest of a config; errors name experiment, arm and field."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from handsell.config.overlay import DIALS, apply_overlay, build_overlay
from handsell.config.schema import Config
from handsell.core.errors import ConfigError
from handsell.eligibility.config import Surface
from handsell.experiments.config import ALWAYS, RANK, RESERVED_EXPERIMENTS, SHARES_ADD_UP, Arm, Experiment, list_changes

NEVER = 2**63 - 1
IDLE: dict[str, dict[str, tuple[str, ...]]] = {  # by surface: keys of arms that have no effect there
    RANK: {"reranking": DIALS, "surface": tuple(Surface.model_fields)},
    "similar": {
        "reranking": ("fatigue",),
        "surface": ("cap", "item_cap", "seen_on", "shown_days", "substitutes"),
    },
}
WHY = {RANK: "where only `bundle` and `weights` act", "similar": "which knows of no user"}


def check_experiments(config: Config) -> None:
    """Raise ConfigError for an experiment that does not fit the config, or that collides with another one."""
    if not config.experiments:
        return
    problems = [f"  experiments.{problem}" for problem in _find_problems(config)]
    if problems:
        raise ConfigError(f"config {config.source}:\n" + "\n".join(problems))


def _find_problems(config: Config) -> Iterator[str]:
    for name, experiment in config.experiments.items():
        if name in RESERVED_EXPERIMENTS or experiment.layer in RESERVED_EXPERIMENTS:
            taken = name if name in RESERVED_EXPERIMENTS else experiment.layer
            yield f"{name}: {taken!r} is reserved for handsell's own experiments: choose another name"
        yield from _check_names(f"{name}.surfaces", experiment.surfaces, (*config.surface_names, RANK), "surfaces")
        yield from _check_effect(name, experiment)
        if experiment.metric is not None:
            yield from _check_names(f"{name}.metric", [experiment.metric], config.events.names, "event types")
        for arm_name, arm in experiment.arms.items():
            yield from _check_arm(config, f"{name}.arms.{arm_name}", experiment, arm)
    yield from _check_layers(config)
    yield from _check_collisions(config)


def _check_arm(config: Config, place: str, experiment: Experiment, arm: Arm) -> Iterator[str]:
    found = [
        *_check_names(f"{place}.reranking", arm.reranking, DIALS, "dials"),
        *_check_names(f"{place}.weights", arm.weights, tuple(config.retrieval.sections), "sources"),
        *_check_names(f"{place}.surface", arm.surface, tuple(Surface.model_fields), "settings of surfaces"),
    ]
    yield from found
    if found:
        return
    enabled = config.retrieval.enabled
    if not config.picks_sources and (off := [source for source in arm.weights if source not in enabled]):
        yield f"{place}.weights: expected enabled sources ({', '.join(enabled)}); got {off[0]!r}"
    try:
        apply_overlay(config, build_overlay(config, [(experiment, arm)]))
    except ValidationError as error:
        of = {True: "surface", False: "reranking"}[error.title == Surface.__name__]
        for one in error.errors():
            key = ".".join(map(str, one["loc"]))
            yield f"{place}.{of}.{key}: {one['msg']} (received: {one['input']!r:.80})"


def _check_effect(name: str, experiment: Experiment) -> Iterator[str]:
    """Everything that an experiment changes acts on all surfaces that it names."""
    if RANK in experiment.surfaces and experiment.interleave:
        yield f"{name}.interleave: expected no interleaving on `rank`, which has no slates: remove one of the two"
    for surface in (surface for surface in experiment.surfaces if surface in IDLE):
        for arm_name, arm in experiment.arms.items():
            changed: dict[str, Iterable[str]] = {"reranking": arm.reranking, "surface": arm.surface}
            vain = [f"{part}.{key}" for part, keys in IDLE[surface].items() for key in changed[part] if key in keys]
            vain += ["rules"] if arm.rules and surface == RANK else []
            if vain:
                yield (
                    f"{name}.arms.{arm_name}.{vain[0]}: expected a change that acts on all surfaces of the experiment "
                    f"({', '.join(experiment.surfaces)}); it has no effect on `{surface}`, {WHY[surface]}: remove "
                    "this surface or the change"
                )


def _check_names(place: str, names: Iterable[str], known: tuple[str, ...], what: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            yield f"{place}: expected {what} ({', '.join(known)}); got {name!r}{hint}"


def _check_layers(config: Config) -> Iterator[str]:
    layers: dict[str, dict[str, Experiment]] = defaultdict(dict)
    for name, experiment in config.experiments.items():
        layers[experiment.layer][name] = experiment
    for layer, members in layers.items():
        for first, other in combinations(members, 2):
            if members[first].unit != members[other].unit:
                yield (
                    f"{other}.unit: expected {members[first].unit!r} as for {first}, which is in layer {layer!r}, too; "
                    f"got {members[other].unit!r}: choose another layer"
                )
        for time in (ALWAYS, *list_changes(members)):
            shares = {name: one.share_at(time) for name, one in members.items()}
            if (total := sum(shares.values())) > 1 + SHARES_ADD_UP:
                each = ", ".join(f"{name} {share:g}" for name, share in shares.items() if share)
                yield (
                    f"{[name for name, share in shares.items() if share][-1]}.share: expected shares of layer "
                    f"{layer!r} that add up to at most 1; got {total:g} ({each}): reduce them, or use another layer"
                )
                break


def _check_collisions(config: Config) -> Iterator[str]:
    """A unit may be in experiments of two layers at once, so they must change different settings."""
    for (first, a), (other, b) in combinations(config.experiments.items(), 2):
        if a.layer == b.layer or not _meet(a, b):
            continue
        if shared := sorted(set(_list_settings(a)) & set(_list_settings(b))):
            yield (
                f"{other}: expected other settings than {first}, which runs at the same time in layer {a.layer!r}; got "
                f"{', '.join(shared)} in both: put both into one layer"
            )


def _meet(a: Experiment, b: Experiment) -> bool:
    """Whether one request may be in both experiments."""
    if a.surfaces and b.surfaces and not {*a.surfaces} & {*b.surfaces}:
        return False
    bounds = [(e.start_us or ALWAYS, NEVER if e.stop_us is None else e.stop_us) for e in (a, b)]
    return max(start for start, _ in bounds) < min(stop for _, stop in bounds)


def _list_settings(experiment: Experiment) -> Iterator[str]:
    """Yield the settings that some arm changes; all interleaved experiments share the making of the slate."""
    if experiment.interleave:
        yield "interleave"
    for arm in experiment.arms.values():
        sections: dict[str, dict[str, Any]] = {
            "weights": arm.weights, "reranking": arm.reranking, "surface": arm.surface,
        }  # fmt: skip
        yield from (f"{section}.{key}" for section, values in sections.items() for key in values)
        if arm.rules:
            yield "rules"
        if arm.bundle:
            yield "bundle"
