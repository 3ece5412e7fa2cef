"""The features job against naive loops over the raw log, as of every request; with late and duplicate events."""

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_world import START, write_tiny, write_tiny_config
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data import splits
from handsell.data.interactions import NUMBERED
from handsell.data.numbering import deduplicate_and_sort, number_events
from handsell.data.schemas import EVENTS
from handsell.features.registry import find_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.user import list_user_features
from handsell.features.views import USER_VIEWS, build_views
from handsell.jobs.features.feature_tables import compute_feature_tables

ITEM_FEATURES = tuple(find_features("item"))

pytestmark = pytest.mark.usefixtures("ray_cluster")


def as_of(config, users, times):
    """Column → the user's value from the newest row at or before each time, by pandas."""
    asked = pd.DataFrame({"user_id": users, "event_timestamp": pd.to_datetime(times, unit="us", utc=True)})
    asked["event_timestamp"] = asked["event_timestamp"].astype("datetime64[us, UTC]")
    asked["row"] = np.arange(len(asked))
    asked = asked.sort_values("event_timestamp")
    found = {}
    for view in USER_VIEWS:
        table = pq.read_table(Layout(config.state).features / view).to_pandas().sort_values("event_timestamp")
        joined = pd.merge_asof(asked, table, on="event_timestamp", by="user_id").sort_values("row")
        found |= {column: joined[column].tolist() for column in build_views(config)[view].names}
    return found


def naive_user(log, snapshot, user, time, config):
    """Compute the state of one user before a time, by a loop over the log."""
    counts, positive, negative = [0, 0, 0], [0.0] * 3, [0.0] * 3
    creators, history, seen = {}, [], {}
    mine = [n for n in range(len(log)) if log.user[n] == user and log.time[n] < time]
    last = max((log.time[n] for n in mine), default=0)
    for n in sorted(mine, key=lambda n: log.time[n]):
        item, kind, weight = int(log.item[n]), int(log.type[n]), float(log.weight[n])
        counts[kind] += 1
        for h, days in enumerate((1, 7, 28)):
            fade = 0.5 ** ((last - log.time[n]) / (days * DAY_US))
            positive[h] += fade * max(weight, 0)
            negative[h] += fade * max(-weight, 0)
        creator = int(snapshot.creator[item])
        if creator >= 0 and weight:
            fade = 0.5 ** ((last - log.time[n]) / (28 * DAY_US))
            creators[creator] = creators.get(creator, 0.0) + fade * weight
        if config.events.types[config.events.names[kind]].seen:
            history.append(item)
            seen[item] = int(log.time[n])
    strongest = sorted(creators, key=lambda c: -abs(creators[c]))[: config.features.affinity_size]
    return {
        "counts": counts,
        "positive": positive,
        "negative": negative,
        "creators": {c: creators[c] for c in strongest},
        "history": history[-config.features.history_length :],
        "seen": dict(sorted(seen.items(), key=lambda pair: -pair[1])[: config.features.seen_cap]),
    }


def check_requests(log, config, users, times):
    """Compare requests from stored rows, joined as of the times, with the naive reference."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    rows = as_of(config, [f"u{u}" for u in users], times)
    zeros = np.zeros(len(times), np.int8)
    requests = build_requests_from_rows(rows, snapshot, config, time=times, surface=zeros)
    names = list_user_features(config)
    for b, (user, time) in enumerate(zip(users, times, strict=True)):
        expected = naive_user(log, snapshot, user, time, config)
        got = dict(zip(names, requests.profile.features[b], strict=True))
        for h, days in enumerate((1, 7, 28)):
            assert got[f"user_positive_{days}d"] == pytest.approx(expected["positive"][h], rel=1e-4, abs=1e-6)
            assert got[f"user_negative_{days}d"] == pytest.approx(expected["negative"][h], rel=1e-4, abs=1e-6)
        for kind, name in enumerate(config.events.names):
            assert got[f"user_log_count_{name}"] == pytest.approx(math.log1p(expected["counts"][kind]), rel=1e-5)
        history = requests.history.item[b]
        assert history[history >= 0].tolist() == expected["history"]
        assert dict(zip(requests.seen.item.row(b), requests.seen.time.row(b), strict=True)) == expected["seen"]
        pairs = zip(requests.profile.creator[b], requests.profile.creator_weight[b], strict=True)
        assert {int(c): pytest.approx(float(w), rel=1e-4, abs=1e-6) for c, w in pairs if c >= 0} == expected["creators"]


def session_starts(log, config, since):
    gap = config.events.session_gap_minutes * 60e6
    new = (np.diff(log.user, prepend=-1) != 0) | (np.diff(log.time, prepend=0) > gap)
    return np.flatnonzero(new & (log.time >= since))


def test_user_rows_are_exact_at_every_session_start_of_the_windows(tmp_path, rng):
    config = write_tiny_config(tmp_path)
    log = write_tiny(config, rng)
    compute_feature_tables(config)
    at = session_starts(log, config, log.time.max() - 12 * DAY_US)
    at = rng.choice(at, 60, replace=False)
    check_requests(log, config, log.user[at], log.time[at])
    # … now, for all users, including one without events
    check_requests(log, config, np.arange(12), np.full(12, log.time.max() + 3 * DAY_US))


@pytest.mark.parametrize("cap", [12, 20, 40])
def test_users_with_more_seen_items_than_the_cap_are_counted(tmp_path, rng, capsys, cap):
    config = write_tiny_config(tmp_path)
    log = write_tiny(config, rng)
    config = config.model_copy(update={"features": config.features.model_copy(update={"seen_cap": cap})})
    compute_feature_tables(config)
    acted = log.type != 0
    beyond = sum(len(set(log.item[acted & (log.user == user)].tolist())) > cap for user in range(12))
    said = f"{beyond:,} users have seen more items than features.seen_cap = {cap}" in capsys.readouterr().out
    assert said == (beyond > 0) == (cap < 40)


def test_times_requested_by_training_are_exact(tmp_path, rng):
    config = write_tiny_config(tmp_path, "leave_last_k")
    log = write_tiny(config, rng)
    users, times = rng.integers(0, 12, 60), rng.integers(START, log.time.max(), 60)
    at = rng.choice(len(log), 20, replace=False)  # and some exactly at an event, which must not count
    users, times = np.concatenate([users, log.user[at]]), np.concatenate([times, log.time[at]])
    asked = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"user": users.astype(np.int32), "time": times}), asked)
    compute_feature_tables(config, asked)
    check_requests(log, config, users, times)


@pytest.mark.parametrize("kind", ["by_time", "leave_last_k"])
def test_request_times_of_every_window_have_rows_by_default(tmp_path, rng, kind):
    config = write_tiny_config(tmp_path, kind)
    log = write_tiny(config, rng)
    compute_feature_tables(config)
    acted = log.type != 0
    shown = (~acted, np.full(len(log), np.nan, np.float32))
    window = splits.assign_windows(log, acted, config.split, splits.Bounds.of(config.split, int(log.time.max())))
    gap_us = config.events.session_gap_us
    stretch = splits.number_stretches(log, acted, window, config.split, gap_us)
    for which in (splits.RANKER, splits.VALIDATION, splits.TEST):
        found = splits.build_window_requests(log, acted, shown, window, stretch, which)
        some = rng.permutation(len(found))[:25]
        check_requests(log, config, found.user[some], found.time[some])


def test_item_rows_are_exact_on_every_day(tmp_path, rng):
    config = write_tiny_config(tmp_path)
    log = write_tiny(config, rng)
    compute_feature_tables(config)
    table = pq.read_table(Layout(config.state).features / "item_activity").to_pandas()
    table = table.sort_values("event_timestamp")
    days = START // DAY_US + np.arange(0, 75, 5)
    for day in days:
        stamp = pd.Timestamp(day * DAY_US, unit="us", tz="UTC")
        newest = table[table.event_timestamp <= stamp].groupby("item_id").last()
        for item in range(30):
            mine = log.item == item
            past = mine & (log.time < day * DAY_US) & (log.time >= (day - 28) * DAY_US)
            positive, events = int((past & (log.weight > 0)).sum()), int((past & (log.weight != 0)).sum())
            row = newest.loc[f"i{item}"] if f"i{item}" in newest.index else None
            if row is None:
                assert events == 0
                continue
            assert (row.item_positives_28d, row.item_events_28d) == (positive, events)
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    stamp = pd.Timestamp(snapshot.as_of, unit="us", tz="UTC")
    newest = table[table.event_timestamp <= stamp].groupby("item_id").last()
    for item_id, row in newest.iterrows():
        at = int(snapshot.items.number([item_id])[0])
        np.testing.assert_array_equal(snapshot.values[at, :7], row[list(ITEM_FEATURES)].to_numpy(np.float32))


def test_late_and_duplicate_events_change_nothing(tmp_path, rng):
    """The log arrives shuffled and with repeats; numbering sorts and drops them, the rows stay the same."""
    rows = {}
    for kind in ("tidy", "messy"):
        folder = tmp_path / kind
        folder.mkdir()
        config = write_tiny_config(folder)
        log = write_tiny(config, np.random.default_rng(5))
        order = np.arange(len(log))
        if kind == "messy":
            order = rng.permutation(np.concatenate([order, rng.choice(order, 200)]))
        _renumber(config, log, order)
        compute_feature_tables(config)
        rows[kind] = {v: pq.read_table(Layout(config.state).features / v).to_pandas() for v in build_views(config)}
    for view, tidy in rows["tidy"].items():
        keys = [c for c in tidy.columns if c.endswith("_id") or c == "event_timestamp"]
        pd.testing.assert_frame_equal(
            tidy.sort_values(keys, ignore_index=True), rows["messy"][view].sort_values(keys, ignore_index=True)
        )


def _renumber(config, log, order):
    """Write the log's events in the given order as canonical ones and let the data step number them."""
    layout = Layout(config.state)
    names = np.array(config.events.names)
    events = pa.table(
        {
            "event_id": [f"e{n}" for n in order],
            "user_id": [f"u{log.user[n]}" for n in order],
            "item_id": [f"i{log.item[n]}" for n in order],
            "type": names[log.type[order]],
            "time": pa.array(log.time[order]).cast(EVENTS.field("time").type),
            **{f: pa.nulls(len(order), EVENTS.field(f).type) for f in EVENTS.names[5:]},
        },
        schema=EVENTS,
    )
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    settled = deduplicate_and_sort(number_events(events.combine_chunks().to_batches()[0], users, items, config.events))
    user = settled["user"].to_numpy()
    for p in range(config.jobs.partitions):
        part = settled.filter(pa.array(user % config.jobs.partitions == p)).cast(NUMBERED)
        pq.write_table(part, layout.interactions / f"part-{p:05d}.parquet")
    assert json.loads(layout.data_meta.read_text())["events"] == len(settled)
