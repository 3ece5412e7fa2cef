"""Recomputation of logged feature vectors from Feast's point-in-time values, with the functions that serving uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import load_snapshot
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates
from handsell.core.errors import FeatureError
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.events.store.opening import open_reader
from handsell.features.item import DailyValues, ItemDays, get_untouched_values, list_item_columns
from handsell.features.matrix import build_matrix, find_sources, list_features
from handsell.features.registry import find_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.served_log import LoggedVectors
from handsell.features.store import FeatureStore

NOBODY = ""  # user id for visitors without one; Feast has no such row


@dataclass(frozen=True, slots=True)
class RecomputedVectors:
    """N rows of the log, recomputed point in time."""

    vectors: np.ndarray  # (N, F) float32 in the order of the logged names; source features are NaN
    fresh: np.ndarray  # (N,) bool: served with events of the user that are not in the offline row
    days_late: np.ndarray  # (N,) int64 days between the bundle's item values and the request


def recompute(logged: LoggedVectors, config: Config, store: FeatureStore) -> RecomputedVectors:
    """Recompute logged vectors; item values are as of the request's day or the bundle's snapshot, whichever is older.

    Raises FeatureError if the log's features differ from this config's, BundleError if a logged bundle is missing.
    """
    expected = list_features(config, find_sources(logged.names))
    if logged.names != expected:
        differing = sorted(set(logged.names) ^ set(expected))
        raise FeatureError(
            f"expected the {len(expected)} features of this config, got {len(logged.names)} in the log (differing: "
            f"{', '.join(differing) or 'only the order'}): compare with the config that served, or serve some "
            "requests with this one first"
        )
    vectors = np.full(logged.vectors.shape, np.nan, np.float32)
    fresh, late = np.zeros(len(vectors), bool), np.zeros(len(vectors), np.int64)
    bundle = np.array(logged.bundle)
    for name in dict.fromkeys(logged.bundle):
        rows = np.flatnonzero(bundle == name)
        snapshot = load_snapshot(open_bundles(config).local_path(name))
        vectors[rows], fresh[rows] = _of_bundle(logged, rows, snapshot, config, store)
        late[rows] = np.maximum(logged.time[rows] // DAY_US - snapshot.as_of // DAY_US, 0)
    return RecomputedVectors(vectors, fresh, late)


def _of_bundle(
    logged: LoggedVectors, rows: np.ndarray, snapshot: Snapshot, config: Config, store: FeatureStore
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, F) vectors and (n,) fresh of one bundle's rows: one request per answer, its items as candidates."""
    answers, first, answer = np.unique(np.array(logged.recommendation_id)[rows], return_index=True, return_inverse=True)
    first = rows[first]
    users = [NOBODY if logged.user_id[i] is None else str(logged.user_id[i]) for i in first]
    time = logged.time[first]
    found = store.historical_users(users, time)
    requests = build_requests_from_rows(found, snapshot, config, time, logged.surface[first])
    newest = requests.history.time.max(axis=1, initial=0)
    fresh = logged.newest[first] > newest
    fresh |= _has_later_events(users, found, time, config)
    item, place = snapshot.items.number([logged.item_id[i] for i in rows]), _within(answer, len(answers))
    shown = np.full((len(answers), int(place.max()) + 1), NONE, np.int32)
    shown[answer, place] = item
    values = _item_values(item, logged.time[rows], snapshot, config, store)
    x = build_matrix(requests, without_sources(shown, find_sources(logged.names)), values, snapshot, config)
    return x[answer, place], fresh[answer]


def _has_later_events(users: list[str], rows: dict[str, pa.Array], time: np.ndarray, config: Config) -> np.ndarray:
    """Return (B,) bool: the event store holds events of the user before the request that the row does not include.

    A row includes the store through its offset, and of that the events until its own time.
    """
    offset, state_time = (
        rows[name].fill_null(0).to_numpy(zero_copy_only=False) for name in ("log_offset", "state_time_us")
    )
    reader = open_reader(config)
    try:
        tails = [reader.read_tail(user) for user in users]
    finally:
        reader.close()
    return np.array(
        [
            any(t < now and (o > through or t > until) for o, t in zip(tail["offset"], tail["time"], strict=True))
            for tail, now, through, until in zip(tails, time, offset, state_time, strict=True)
        ],
        bool,
    )


def _within(group: np.ndarray, n: int) -> np.ndarray:
    """Return the number of earlier rows of the same group (N,)."""
    order = np.argsort(group, kind="stable")
    starts = offsets_from_counts(np.bincount(group, minlength=n))
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - starts[group[order]]
    return place


def _item_values(
    item: np.ndarray, time: np.ndarray, snapshot: Snapshot, config: Config, store: FeatureStore
) -> DailyValues:
    """Read activity and item columns from Feast for each (item, day)."""
    day = np.minimum(time, snapshot.as_of) // DAY_US
    known = item != NONE
    pairs = np.unique(np.stack([item[known].astype(np.int64), day[known]], axis=1), axis=0)
    columns = store.historical_items(snapshot.items.ids(pairs[:, 0]), pairs[:, 1] * DAY_US)

    def floats(names: tuple[str, ...]) -> np.ndarray:
        cells = [columns[name].to_numpy(zero_copy_only=False).astype(np.float32) for name in names]
        return np.stack(cells, axis=1) if cells else np.zeros((len(pairs), 0), np.float32)

    activity = floats(tuple(find_features("item")))
    activity = np.where(np.isnan(activity).all(axis=1, keepdims=True), get_untouched_values(), activity)
    extra = floats(tuple(config.features.item_columns))
    static = np.full((len(snapshot), extra.shape[1]), np.nan, np.float32)
    static[pairs[:, 0]] = extra  # sorted by day: an item's latest wins
    return DailyValues.of(
        ItemDays(pairs[:, 0].astype(np.int32), pairs[:, 1], activity), static, list_item_columns(config)
    )


def without_sources(item: np.ndarray, sources: tuple[str, ...]) -> Candidates:
    """Return candidates without ranks and scores of sources, which cannot be recomputed."""
    unknown = np.full((*item.shape, len(sources)), np.nan, np.float32)
    blank = np.zeros(item.shape, np.float32)
    return Candidates(item, blank, unknown, unknown, blank, sources)
