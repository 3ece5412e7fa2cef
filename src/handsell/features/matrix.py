"""The feature matrix (B, K, F) of the ranker: one builder for training and serving.

Groups, in this order: `source` (what retrieval said), `user`, `item`, `cross`, `context`. Retrievers'
raw scores are not here: only ranks and per-request standardized scores, so that retrievers may be
refitted while the ranker stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests
from handsell.core.errors import ConfigError, FeatureError
from handsell.core.units import DAY_US
from handsell.features.crosses import CROSSES, crosses
from handsell.features.item import DailyValues, ItemValues, SnapshotValues
from handsell.features.user import user_feature_names
from handsell.features.views import ITEM_ACTIVITY

CONTEXT = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "surface")


def feature_groups(config: Config, sources: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Feature names by group, for reports and ablations; their concatenation is `feature_names`."""
    return {
        "source": (
            *(f"src_{name}_rank" for name in sources),
            *(f"src_{name}_z" for name in sources),
            "src_count",
            "src_fused",
        ),
        "user": user_feature_names(config),
        "item": (*ITEM_ACTIVITY, *(f"item_{name}" for name in config.features.item_columns)),
        "cross": CROSSES,
        "context": CONTEXT,
    }


def feature_names(config: Config, sources: Sequence[str]) -> tuple[str, ...]:
    """The F columns of `build_matrix` in order; `sources` as in Candidates.sources."""
    return tuple(name for group in feature_groups(config, sources).values() for name in group)


def source_names_in(features: Sequence[str]) -> tuple[str, ...]:
    """The sources that feature names speak of, in their order: a bundle's, where training picked them."""
    ranks = (name.removeprefix("src_") for name in features if name.startswith("src_") and name.endswith("_rank"))
    return tuple(name.removesuffix("_rank") for name in ranks)


def ranker_features(config: Config, sources: Sequence[str]) -> tuple[str, ...]:
    """`feature_names` without what `ranking.without` names; raises ConfigError where it names what there is not."""
    groups = feature_groups(config, sources)
    names = feature_names(config, sources)
    picked = config.retrieval.sections if config.retrieval.sources is not None or config.picks_sources else ()
    of_others = {name for source in picked for name in (f"src_{source}_rank", f"src_{source}_z")}
    unknown = [name for name in config.ranking.without if name not in {*groups, *names, *of_others}]
    if unknown:
        raise ConfigError(
            f"ranking.without names {', '.join(unknown)}: expected groups ({', '.join(groups)}) or features of this "
            f"config ({', '.join(names)})"
        )
    left_out = {f for name in config.ranking.without for f in groups.get(name, (name,))}
    if left_out.issuperset(names):
        raise ConfigError(
            "ranking.without leaves no feature: keep some, or set ranking.enabled = false to serve the blend"
        )
    return tuple(name for name in names if name not in left_out)


def build_matrix(
    requests: Requests,
    candidates: Candidates,
    items: ItemValues,
    snapshot: Snapshot,
    config: Config,
    pick: np.ndarray | None = None,
) -> np.ndarray:
    """(B, K, F) float32, contiguous; NaN where something is unknown.

    `pick` (B, k) int keeps those columns of the candidates: source features still speak of all K, as they
    do in serving, so training on some candidates of a request must pass all and pick.
    Raises FeatureError when users or items have another number of values than the config names.
    """
    groups = feature_groups(config, candidates.sources)
    source = source_features(candidates)
    shown = candidates.item
    if pick is not None:
        source = np.take_along_axis(source, pick[:, :, None], axis=1)
        shown = np.take_along_axis(shown, pick, axis=1)
    values = items.gather(shown, requests.time)
    _expect("item", groups["item"], values.shape[2])
    _expect("user", groups["user"], requests.profile.features.shape[1])
    parts = (
        source,
        requests.profile.features[:, None, :],
        values,
        crosses(requests, shown, snapshot),
        context_features(requests)[:, None, :],
    )
    out = np.empty((*shown.shape, sum(part.shape[2] for part in parts)), np.float32)
    begin = 0
    for part in parts:
        out[:, :, begin : begin + part.shape[2]] = part
        begin += part.shape[2]
    return out


def source_features(candidates: Candidates) -> np.ndarray:
    """(B, K, 2S + 2) float32: ranks, standardized scores, number of sources, fused score."""
    score = candidates.source_score.astype(np.float64)
    given = np.isfinite(score)
    count = np.maximum(given.sum(axis=1, keepdims=True), 1)  # (B, 1, S)
    mean = np.where(given, score, 0).sum(axis=1, keepdims=True) / count
    off = np.where(given, score - mean, 0)
    deviation = np.sqrt((off * off).sum(axis=1, keepdims=True) / count)
    z = np.where(given, off / np.where(deviation > 0, deviation, 1), np.nan)
    sources = np.isfinite(candidates.source_rank).sum(axis=2, keepdims=True)
    parts = (candidates.source_rank, z, sources, candidates.fused[:, :, None])
    return np.concatenate(parts, axis=2, dtype=np.float32, casting="same_kind")


def context_features(requests: Requests) -> np.ndarray:
    """(B, 5) float32: where in the day and the week (UTC), and the surface's code."""
    day = requests.time / DAY_US
    hour, week = 2 * np.pi * (day % 1), 2 * np.pi * (day % 7) / 7
    columns = (np.sin(hour), np.cos(hour), np.sin(week), np.cos(week), requests.surface)
    return np.stack(columns, axis=1).astype(np.float32)


def _expect(what: str, names: tuple[str, ...], got: int) -> None:
    if len(names) != got:
        raise FeatureError(
            f"expected {len(names)} {what} values ({', '.join(names)}), got {got}: the config and the "
            f"features disagree; run `handsell features CONFIG` again, or use the config of the bundle"
        )


__all__ = [
    "DailyValues",
    "ItemValues",
    "SnapshotValues",
    "build_matrix",
    "context_features",
    "feature_groups",
    "feature_names",
    "ranker_features",
    "source_features",
]
