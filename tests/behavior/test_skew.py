"""The skew report on the trained deployment: no finding on correct vectors; planted skew is named."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from handsell.bundles.stages import load_stages
from handsell.core.errors import FeatureError
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.features.item import SnapshotValues
from handsell.features.request_builder import build_events, build_requests_from_rows
from handsell.features.served_log import FEATURE_LOG
from handsell.features.user import list_user_features
from handsell.jobs.features.skew import REPORT, report_skew
from handsell.serving.stream.processor import Processor
from handsell.serving.stream.snapshots import ServedCatalog
from handsell.serving.telemetry.feature_log import FeatureLog, Sample

USERS = [f"u{i:07d}" for i in (0, 3, 17, 42, 77, 101, 149)] + ["nobody_yet", None]


@pytest.fixture(scope="module")
def shop(deployment, tmp_path_factory):
    return deployment.copy(tmp_path_factory.mktemp("skew"))


@pytest.fixture(scope="module")
def stages(shop):
    return load_stages(shop.path, shop.config)


@pytest.fixture(autouse=True)
def empty_logs(shop):
    for folder in (shop.layout.logs, shop.layout.event_log.parent):
        for old in folder.glob("*"):
            old.unlink()


def serve(shop, stages, change=lambda requests: requests, ranking=None, told=None):
    """Serve one batch as a replica does, with logged vectors; `told` are events that the online row lacks."""
    ranking = ranking or stages.ranking
    time = np.full(len(USERS), stages.snapshot.as_of + DAY_US // 3)
    rows = shop.store().online_users([user or "" for user in USERS])
    events = None
    if told:
        columns = {"type": ["like"], "item_id": [told[1]], "time": [int(time[0]) - 5_000_000], "offset": [1]}
        events = build_events(columns, np.array([USERS.index(told[0])]), stages.snapshot, shop.config)
    surface = np.zeros(len(USERS), np.int8)
    requests = change(build_requests_from_rows(rows, stages.snapshot, shop.config, time, surface, events=events))
    found = run_local(stages.candidates.candidates(requests, shop.config.retrieval.candidates))
    ranked = run_local(ranking.rank(requests, found, shop.config.ranking.ranked))
    log = FeatureLog(shop.layout.logs / FEATURE_LOG, shop.bundle)
    samples = [Sample(row, f"answer-{row}", user) for row, user in enumerate(USERS)]
    log.record(ranking, requests, found, ranked, samples)
    log.close()
    return int(time[0])


def compared(shop):
    """(the report, what it printed, the features that differ in its order)."""
    out = io.StringIO()
    found = report_skew(shop.config, Console(file=out, width=200))
    assert json.loads((shop.layout.logs / REPORT).read_text()) == found
    return found, out.getvalue(), [d["feature"] for d in found["features"] if d["differing"]]


def test_correct_vectors_have_no_skew(shop, stages):
    serve(shop, stages)
    found, text, differing = compared(shop)
    assert differing == [] and found["fresh_rows"] == 0 and "No skew" in text
    assert found["answers"] == len(USERS) and found["rows"] == 10 * len(USERS)
    assert {d["compared"] for d in found["features"]} == {found["rows"]}
    names = [d["feature"] for d in found["features"]]
    assert sorted((*names, *found["left_out"])) == sorted(stages.ranking.ranker.features)
    assert all(name.startswith("src_") for name in found["left_out"])


def test_a_wrong_user_feature_in_serving_is_named_first(shop, stages):
    column = 3

    def planted(requests):
        features = requests.profile.features.copy()
        features[:, column] = features[:, column] * 1.01 + 0.01
        return replace(requests, profile=replace(requests.profile, features=features))

    serve(shop, stages, planted)
    found, text, differing = compared(shop)
    name = list_user_features(shop.config)[column]
    assert differing == [name] and found["features"][0]["feature"] == name
    assert text.splitlines()[-2].startswith("SKEW: 1 of") and name in text.splitlines()[-2]


def test_item_values_of_another_day_are_found(shop, stages):
    values = np.array(stages.snapshot.values)
    column = stages.snapshot.value_names.index("item_positives_7d")
    values[:, column] += 1
    ranking = replace(stages.ranking, items=SnapshotValues(replace(stages.snapshot, values=values)))
    serve(shop, stages, ranking=ranking)
    found, _, differing = compared(shop)
    assert differing == ["item_positives_7d"]
    assert found["features"][0]["share"] == 1.0 and found["features"][0]["max_abs"] == pytest.approx(1)


def test_a_value_that_only_one_side_knows_differs(shop, stages):
    def forgotten(requests):
        features = requests.profile.features.copy()
        features[:, 0] = np.nan
        return replace(requests, profile=replace(requests.profile, features=features))

    serve(shop, stages, forgotten)
    found, text, differing = compared(shop)
    assert differing == [list_user_features(shop.config)[0]]
    assert found["features"][0]["max_abs"] is None and "one unknown" in text


def test_an_outdated_online_store_is_skew(shop, stages):
    """Rows of three days before the end: a batch job did not run."""
    rows = shop.store().historical_users([u or "" for u in USERS], np.full(len(USERS), stages.snapshot.as_of - DAY_US))

    def stale(requests):
        old = build_requests_from_rows(rows, stages.snapshot, shop.config, requests.time, requests.surface)
        assert (old.history.time.max(axis=1) < requests.history.time.max(axis=1)).any()
        return old

    serve(shop, stages, stale)
    found, _, differing = compared(shop)
    assert found["fresh_rows"] == 0 and set(differing) & set(list_user_features(shop.config))
    assert not [name for name in differing if name.startswith("item_")]


@pytest.mark.parametrize("logged", [True, False], ids=["in the log", "told in the request"])
def test_fresh_events_are_listed_apart(shop, stages, logged):
    user, item = USERS[2], stages.snapshot.items.ids(np.array([5]))[0]
    time = serve(shop, stages, told=(user, item))
    if logged:
        with SqliteWriter(shop.layout.event_log) as log:
            event = {"event_id": "e1", "user_id": user, "item_id": item, "type": "like", "time": time - 5_000_000}
            log.append([event]).result(timeout=10)
    found, text, differing = compared(shop)
    assert differing == [] and found["fresh_users"] == [user] and found["fresh_rows"] == 10
    assert "Fresh events" in text and user in text
    counts = {d["group"]: d["compared"] for d in found["features"]}
    assert counts["item"] == counts["context"] == found["rows"]
    assert counts["user"] == counts["cross"] == found["rows"] - 10


def test_rows_of_the_stream_processor_have_no_skew(shop, stages):
    """Of their users only what does not depend on fresh events is compared, also where these change no history."""
    store, users = shop.store(), USERS[:3]
    before = store.online_users(users)
    at = stages.snapshot.as_of + DAY_US // 4
    items = stages.snapshot.items.ids(np.array([5, 6, 7]))
    with SqliteWriter(shop.layout.event_log) as log:
        for user, item, kind in zip(users, items, ("like", "impression", "skip"), strict=True):
            event = {"event_id": user, "user_id": user, "item_id": item, "type": kind, "time": at}
            log.append([event]).result(timeout=10)
        reader = open_reader(shop.config)
        catalog, saved = ServedCatalog(shop.config), {}
        assert Processor(shop.config, store, reader, catalog, saved.__setitem__).process_batch() == 3
        reader.close()
    after = store.online_users(users)
    assert after["log_offset"] == [1, 2, 3] and after["state_time_us"] == [at] * 3
    assert [b - a for a, b in zip(before["count_like"], after["count_like"], strict=True)] == [1, 0, 0]
    serve(shop, stages)
    found, _, differing = compared(shop)
    assert differing == [] and sorted(found["fresh_users"]) == sorted(users)
    store.materialize()


def test_an_empty_log_is_an_error_with_advice(shop):
    with pytest.raises(FeatureError, match=r"feature_log_share above 0 \(it is 0\)"):
        report_skew(shop.config)
