"""Serving and training use the values in Feast; a missing feature is an error."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from handsell.core.errors import BundleError, FeatureError
from handsell.data.schemas import TIME
from handsell.features.repository import find_feature_repo, prepare_feast_environment, write_feast_file
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train import examples, train
from handsell.jobs.train.requests import fetch_user_rows
from handsell.ranking.shards import read_shards, shard_folders
from handsell.serving.graph.loading import check_features, open_bundle
from serving_service import start_service

ANNA, BERT, CARL = "u0000003", "u0000042", "u0000077"


@pytest.fixture(scope="module")
def mine(deployment, tmp_path_factory):
    """A copy of the deployment, which these tests change."""
    return deployment.copy(tmp_path_factory.mktemp("changed"))


# -- what is served -------------------------------------------------------------------------------------


async def slates(deployment):
    async with start_service(deployment) as (client, _):
        found = {}
        for user in (ANNA, BERT, CARL):
            body = (await client.get(f"/v1/users/{user}/recommendations?count=10")).json()
            assert body["degraded"] == []
            found[user] = [(item["item_id"], item["score"]) for item in body["items"]]
    return found


async def test_a_row_overwritten_with_stock_feast_changes_that_users_slate_only(mine, monkeypatch):
    import feast

    now = time.time_ns()
    monkeypatch.setattr("handsell.core.clock.time", SimpleNamespace(time_ns=lambda: now))
    before = await slates(mine)
    assert await slates(mine) == before  # the clock stands still
    stock = feast.FeatureStore(fs_yaml_file=write_feast_file(mine.config))
    for view in ("user_history", "user_affinity"):
        table = pq.read_table(mine.layout.features / view).sort_by("event_timestamp")
        row = table.filter(pc.equal(table["user_id"], CARL)).slice(0)[-1:].to_pandas()
        stock.write_to_online_store(view, df=row.assign(user_id=ANNA))
    after = await slates(mine)
    assert after[BERT] == before[BERT] and after[CARL] == before[CARL]
    old, new, model = ({item for item, _ in one} for one in (before[ANNA], after[ANNA], after[CARL]))
    assert len(new & model) > len(old & model)  # she is served like the one whose past she was given


def test_importing_feast_leaves_metrics_in_memory():
    """Feast's own switch makes all registries of a process add up, which a second gateway would inherit."""
    code = "import handsell.features.store; from prometheus_client import values; print(values.ValueClass.__name__)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "MutexValue"


# -- what is learned ------------------------------------------------------------------------------------


def learned(deployment):
    """(user rows as training fetches them, examples) of the ranker window."""
    config, run = deployment.config, deployment.run
    for name in ("rows", "candidates", "item_days", "examples"):
        shutil.rmtree(run / name, ignore_errors=True)
    run_tasks(fetch_user_rows, [(config, run, ("ranker",))])
    examples.find_candidates(config, run, run / "holdout", "ranker")
    run_tasks(examples.fetch_item_values, [(config, run, ("ranker",))])
    examples.write_examples(config, run, run / "holdout", "ranker")
    rows = read_shards(shard_folders(run / "examples" / "ranker"), deployment_features(run))
    return pq.read_table(run / "rows" / "ranker.parquet"), rows


def deployment_features(run):
    return tuple(json.loads((run / "holdout" / "ranker" / "features.json").read_text()))


def changed_columns(before, after):
    """Map each feature to the rows (N,) in which it differs."""
    differs = ~((before.x == after.x) | (np.isnan(before.x) & np.isnan(after.x)))
    return {name: np.flatnonzero(differs[:, f]) for f, name in enumerate(before.features) if differs[:, f].any()}


def edit(folder, picked, column, value):
    """Write `value` to one column in the rows where picked(table) is true; return their number."""
    total = 0
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        at = picked(table)
        total += pc.sum(at).as_py() or 0
        cells = pc.if_else(at, pa.scalar(value, table.schema.field(column).type), table[column])
        pq.write_table(table.set_column(table.schema.get_field_index(column), table.schema.field(column), cells), path)
    return total


@pytest.fixture(scope="module")
def asked(mine):
    """(user id, µs) of every request of the ranker window, in order."""
    users = pq.read_table(mine.layout.users)["user_id"].to_pylist()
    window = pq.read_table(mine.run / "windows" / "ranker.parquet")
    return [
        (users[user], at_us) for user, at_us in zip(*(window[n].to_pylist() for n in ("user", "time")), strict=True)
    ]


@pytest.fixture(scope="module")
def baseline(mine):
    return learned(mine)


def test_one_offline_value_of_a_user_changes_the_examples_of_its_time(mine, asked, baseline):
    rows, before = baseline
    every = stamped(mine.layout.features / "user_activity")
    user, at_us, stamps = next(
        (user, at_us, past)
        for user, at_us in asked[len(asked) // 2 :]
        if (past := [s for u, s in every if u == user and s <= at_us])
    )
    count = edit(
        mine.layout.features / "user_activity",
        lambda t: pc.and_(pc.equal(t["user_id"], user), pc.equal(t["event_timestamp"].cast(pa.int64()), max(stamps))),
        "count_listen",
        4_321.0,
    )
    assert count == 1
    fetched, after = learned(mine)
    for name in rows.column_names:
        if name != "count_listen":
            assert fetched[name].equals(rows[name]), name
    cells = zip(rows["count_listen"].to_pylist(), fetched["count_listen"].to_pylist(), strict=True)
    moved = [place for place, (old, new) in enumerate(cells) if old != new]
    assert (user, at_us) in [asked[place] for place in moved] and {asked[place][0] for place in moved} == {user}
    assert np.array_equal(before.qid, after.qid) and np.array_equal(before.item, after.item)
    differs = changed_columns(before, after)
    assert list(differs) == ["user_log_count_listen"]
    at = differs["user_log_count_listen"]
    assert len(set(before.qid[at])) <= len(moved) and len(at) < len(before)  # whole groups of that user
    assert np.allclose(after.x[at, after.features.index("user_log_count_listen")], np.log1p(4_321))


def test_one_offline_value_of_an_item_changes_the_examples_of_that_item(mine, baseline):
    _, before = learned(mine)
    item = int(np.bincount(before.item).argmax())
    name = pq.read_table(mine.layout.items)["item_id"][item].as_py()
    day = pa.scalar(
        min(s for i, s in stamped(mine.layout.features / "item_activity") if i == name) + 6 * 86_400_000_000
    )
    edit(
        mine.layout.features / "item_activity",
        lambda t: pc.and_(pc.equal(t["item_id"], name), pc.greater_equal(t["event_timestamp"].cast(pa.int64()), day)),
        "item_positives_total",
        9_876.0,
    )
    _, after = learned(mine)
    differs = changed_columns(before, after)
    assert list(differs) == ["item_positives_total"]
    assert set(before.item[differs["item_positives_total"]].tolist()) == {item}


def stamped(folder):
    """(key, µs) of every row of a view."""
    table = pq.read_table(folder)
    stamps = table["event_timestamp"].cast(TIME).cast(pa.int64()).to_pylist()
    return list(zip(table[0].to_pylist(), stamps, strict=True))


# -- what is missed -------------------------------------------------------------------------------------

GONE = "positives_total"


@pytest.fixture(scope="module")
def without(mine, tmp_path_factory):
    """The copy, after `feast apply` without one feature."""
    repo = tmp_path_factory.mktemp("edited") / "feature_repo"
    shutil.copytree(find_feature_repo(mine.config), repo, ignore=shutil.ignore_patterns("__pycache__"))
    views = (repo / "views.py").read_text()
    edited = views.replace(
        "for column, arrow in view.columns]", f'for column, arrow in view.columns if column != "{GONE}"]'
    )
    assert edited != views
    (repo / "views.py").write_text(edited)
    command = [str(Path(sys.executable).with_name("feast")), "-c", str(repo), "apply"]
    environment = os.environ | prepare_feast_environment(mine.config)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return mine


def test_training_is_refused_by_the_name_of_the_missing_feature(without):
    with pytest.raises(FeatureError, match=rf"service ranking_v1 .*missing: {GONE}\b.*feast -c feature_repo apply"):
        train.train(without.config)


async def test_a_bundle_is_refused_by_the_name_of_the_missing_feature(without):
    """By the constructor of the gateway, which Serve runs before the first request."""
    from handsell.serving.graph.gateway import Gateway

    made = Gateway.func_or_class  # Serve makes the constructor of an ingress a coroutine
    with pytest.raises(BundleError, match=rf"bundle {without.bundle} is refused: .*missing: {GONE}\b"):
        await made.__init__(made.__new__(made), str(without.config.source), without.bundle, None)


def test_a_bundle_is_refused_for_what_it_was_trained_on(deployment):
    """Even if the present config does not name the feature."""
    opened = open_bundle(str(deployment.config.source), deployment.bundle)
    assert GONE in opened.manifest.service_features
    check_features(opened, deployment.store().check_contract)
    wanted = (*opened.manifest.service_features, "item_moon_phase")
    manifest = opened.manifest.model_copy(update={"service_features": wanted})
    with pytest.raises(BundleError, match="missing: item_moon_phase"):
        check_features(replace(opened, manifest=manifest), deployment.store().check_contract)
