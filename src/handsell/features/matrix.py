"""The feature matrix (B, K, F) of the ranker: one builder for training and serving.

Groups, in this order: `source` (ranks and scores of retrievers), `user`, `item`, `cross`, `context`. All but `source`
are registered features (`features/registry.py`) and configured columns. Retrievers' raw scores are left out: ranks and
per-request standardized scores let retrievers be refitted while the ranker stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests
from handsell.core.errors import ConfigError, FeatureError
from handsell.core.kernels import compiled
from handsell.features.crosses import write_crosses
from handsell.features.item import DailyValues, ItemValues, SnapshotValues, list_item_features
from handsell.features.registry import find_features
from handsell.features.user import list_user_features


def group_features(config: Config, sources: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return feature names by group; their concatenation is `list_features`."""
    return {
        "source": (
            *(f"src_{name}_rank" for name in sources),
            *(f"src_{name}_z" for name in sources),
            "src_count",
            "src_fused",
        ),
        "user": list_user_features(config),
        "item": list_item_features(config),
        "cross": tuple(find_features("cross")),
        "context": tuple(find_features("context")),
    }


def list_features(config: Config, sources: Sequence[str]) -> tuple[str, ...]:
    """Return the F columns of `build_matrix` in order; `sources` as in Candidates.sources."""
    return tuple(name for group in group_features(config, sources).values() for name in group)


def find_sources(features: Sequence[str]) -> tuple[str, ...]:
    """Return the sources whose ranks are among the feature names, in their order."""
    ranks = (name.removeprefix("src_") for name in features if name.startswith("src_") and name.endswith("_rank"))
    return tuple(name.removesuffix("_rank") for name in ranks)


def select_ranker_features(config: Config, sources: Sequence[str]) -> tuple[str, ...]:
    """Return `list_features` without the groups and features that `ranking.without` names.

    Raises ConfigError if it names an unknown one, if none is left, or if two features have the same name.
    """
    groups = group_features(config, sources)
    names = list_features(config, sources)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ConfigError(
            f"expected distinct feature names, got {', '.join(twice)} twice: rename the feature or column"
        )
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
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> np.ndarray:
    """(B, K, F) float32, contiguous, in the order of `list_features`; NaN where a value is unknown.

    `pick` (B, k) int keeps those columns of the candidates. Source features are standardized over all K, as in serving,
    so training on some candidates of a request must pass all of them and `pick`. `groups`: `group_features`, if known.
    Raises FeatureError if the users' or items' values are not those that the config names.
    """
    groups = groups or group_features(config, candidates.sources)
    profile = requests.profile.features
    if profile.shape[1] != len(groups["user"]):
        _refuse("user", groups["user"], f"{profile.shape[1]}")
    if items.names != groups["item"]:
        _refuse("item", groups["item"], f"{len(items.names)} ({', '.join(items.names)})")
    item = candidates.item if pick is None else np.take_along_axis(candidates.item, pick, axis=1)
    ends = np.cumsum([len(names) for names in groups.values()]).tolist()
    begin = dict(zip(groups, [0, *ends], strict=False))
    out = np.empty((*item.shape, ends[-1]), np.float32)
    _write_source_features(candidates, pick, out)
    write_crosses(requests, item, snapshot, out, begin["cross"])
    context = compute_context(requests)
    if compiled is not None and type(items) is SnapshotValues and item.size:
        compiled.write_values(
            np.ascontiguousarray(profile, np.float32), np.ascontiguousarray(items.snapshot.values, np.float32),
            np.ascontiguousarray(item, np.int32), context, out, begin["user"], begin["item"], begin["context"],
        )  # fmt: skip
        return out
    parts = {"user": profile[:, None, :], "item": items.gather(item, requests.time), "context": context[:, None, :]}
    for name, part in parts.items():
        out[:, :, begin[name] : begin[name] + part.shape[2]] = part
    return out


def _write_source_features(candidates: Candidates, pick: np.ndarray | None, out: np.ndarray) -> None:
    """Write the first columns of the matrix `out` (B, K, F)."""
    if pick is not None or compiled is None:
        source = compute_source_features(candidates)
        out[:, :, : source.shape[2]] = source if pick is None else np.take_along_axis(source, pick[:, :, None], axis=1)
        return
    arrays = (candidates.source_score, candidates.source_rank, candidates.fused)
    compiled.write_sources(*(np.ascontiguousarray(array, np.float32) for array in arrays), out, len(out))


def compute_source_features(candidates: Candidates) -> np.ndarray:
    """(B, K, 2S + 2) float32: ranks, standardized scores, number of sources, fused score."""
    score = candidates.source_score.astype(np.float64)
    known = np.isfinite(score)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)  # (B, 1, S)
    mean = np.where(known, score, 0).sum(axis=1, keepdims=True) / count
    off = np.where(known, score - mean, 0)
    deviation = np.sqrt((off * off).sum(axis=1, keepdims=True) / count)
    n = score.shape[2]
    out = np.empty((*score.shape[:2], 2 * n + 2), np.float32)
    out[:, :, :n] = candidates.source_rank
    out[:, :, n : 2 * n] = np.where(known, off / np.where(deviation > 0, deviation, 1), np.nan)
    out[:, :, 2 * n] = np.isfinite(candidates.source_rank).sum(axis=2)
    out[:, :, 2 * n + 1] = candidates.fused
    return out


def compute_context(requests: Requests) -> np.ndarray:
    """(B, number of context features) float32."""
    features = find_features("context").values()
    out = np.empty((len(requests), len(features)), np.float32)
    for f, found in enumerate(features):
        out[:, f] = found.value(requests)
    return out


def _refuse(group: str, expected: tuple[str, ...], got: str) -> None:
    raise FeatureError(
        f"expected {len(expected)} {group} values ({', '.join(expected)}), got {got}: run `handsell features CONFIG` "
        "again, or use the config and the packages that the bundle was trained with"
    )


__all__ = [
    "DailyValues",
    "ItemValues",
    "SnapshotValues",
    "build_matrix",
    "compute_source_features",
    "find_sources",
    "group_features",
    "list_features",
    "select_ranker_features",
]
