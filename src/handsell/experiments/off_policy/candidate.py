"""Candidates of off-policy evaluation: a bundle, changed settings, or an arm of an experiment.

A file of changed settings has the keys of an arm (`reranking`, `weights`, `surface`, `rules`, `bundle`):

    [reranking]
    diversity = 0.3
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import Stages, apply_choices, load_stages
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.config.overlay import apply_overlay, build_overlay
from handsell.core.errors import BundleError, ConfigError
from handsell.experiments.config import Arm, Experiment
from handsell.reranking.stage import LocalReranking

LIVE, LATEST = "live", "latest"


@dataclass(frozen=True)
class SlatePolicy:
    """A bundle with the settings under which it makes slates."""

    name: str
    manifest: Manifest
    stages: Stages


def load_candidate(config: Config, candidate: str, surface: str = "home") -> SlatePolicy:
    """Load `live`, `latest`, a bundle's id, a TOML file of changed settings, or EXPERIMENT.ARM of the config.

    Raises ConfigError or BundleError.
    """
    arm = find_arm(config, candidate, surface)
    if arm is None:
        return load_policy(config, candidate, candidate)
    return load_policy(config, arm.bundle or LIVE, candidate, arm, surface)


def find_arm(config: Config, candidate: str, surface: str) -> Arm | None:
    """Return the changed settings that a candidate names; None if it names a bundle."""
    if candidate.endswith(".toml"):
        return _read_arm(Path(candidate))
    name, _, arm = candidate.partition(".")
    experiment = config.experiments.get(name)
    if experiment is None or not arm:
        return None
    if arm not in experiment.arms:
        raise ConfigError(f"--candidate: experiment {name} has the arms {', '.join(experiment.arms)}, got {arm!r}")
    if experiment.surfaces and surface not in experiment.surfaces:
        raise ConfigError(
            f"--candidate: experiment {name} runs on {', '.join(experiment.surfaces)}, got --surface {surface}"
        )
    return experiment.arms[arm]


def load_policy(config: Config, bundle: str, name: str, arm: Arm | None = None, surface: str = "home") -> SlatePolicy:
    """Load the stages of a bundle as this deployment serves them, with the changes of an arm."""
    store = open_bundles(config)
    bundle = _resolve(store, bundle, config)
    manifest, path = store.verify(bundle), store.local_path(bundle)
    served = apply_choices(config, path)
    if arm is not None:
        served = _change(served, arm, surface, name)
    served._source = config.source
    stages = load_stages(path, served).with_rules()
    assert isinstance(stages.reranking, LocalReranking)
    return SlatePolicy(name, manifest, replace(stages, reranking=stages.reranking.without_counting))


def _resolve(store: BundleStore, name: str, config: Config) -> str:
    if name == LATEST and store.list():
        return store.list()[-1]
    if name not in (LIVE, LATEST):
        return name
    live = store.live()
    if live is None:
        raise BundleError(f"there is no {name} bundle yet: run `handsell train {config.source}`")
    return live


def _read_arm(path: Path) -> Arm:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--candidate: {path} does not exist: expected a TOML file with [reranking], say") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"--candidate: {path} is not readable TOML: {error}") from None
    try:
        return Arm.model_validate({"share": 1.0, **raw})
    except ValidationError as error:
        raise _describe(error, str(path)) from None


def _change(config: Config, arm: Arm, surface: str, name: str) -> Config:
    unknown = [source for source in arm.weights if source not in config.retrieval.enabled]
    if unknown:
        raise ConfigError(
            f"--candidate {name}: weights has {', '.join(unknown)}: expected enabled sources "
            f"({', '.join(config.retrieval.enabled)})"
        )
    try:
        experiment = Experiment.model_construct(surfaces=(surface,), arms={name: arm})
        return apply_overlay(config, build_overlay(config, [(experiment, arm)]))
    except ValidationError as error:
        raise _describe(error, name) from None


def _describe(error: ValidationError, name: str) -> ConfigError:
    lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (received: {e['input']!r:.80})" for e in error.errors()]
    return ConfigError(
        f"--candidate {name}: {'; '.join(lines)}. Expected the keys of an experiment's arm: reranking, weights, "
        "surface, rules, bundle"
    )
