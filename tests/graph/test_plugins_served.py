"""A package's retriever, user feature, cross feature and rule, trained and served by `make up`, each at work.

The package is tests/plugins/handsell_shop; nothing in src/ knows of it.
"""

import shutil
import subprocess
import sys
import time

import httpx
import pytest

from deployment import write_config
from handsell.bundles.store import BundleStore
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.local import cluster, service
from handsell.testing.rule_catalog import write_rule
from installed_plugins import install_package
from open_sockets import free_ports

pytestmark = pytest.mark.slow  # a whole `make up`
FEATURES = {"user_evening_share", "creator_of_last_item"}
GAP = 2
USERS = [f"u{n:07d}" for n in range(0, 150, 5)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(client, config) of the tiny world, trained and served in an environment that has the package."""
    folder = tmp_path_factory.mktemp("plugins")
    environment, _ = install_package(folder)
    serving, gcs, dashboard = free_ports(3)
    source = write_config(folder, serving, two_tower=False).source
    text = source.read_text()
    text = text.replace('name = "tiny"\n', 'name = "plugins"\n')
    text = text.replace("[reranking]\n", '[reranking]\nrules = "rules.toml"\n')
    text = text.replace("[jobs]\n", f"[jobs]\ngcs_port = {gcs}\ndashboard_port = {dashboard}\nnum_cpus = 2\n")
    source.write_text(f"{text}\n[retrieval.latest]\nenabled = true\nk = 60\n")
    (folder / "rules.toml").write_text(write_rule("years", "apart", items="item.year > 0", column="year", gap=GAP))
    up = [sys.executable, "-m", "handsell", "up", str(source)]
    environment["HANDSELL_HOME"] = str(folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDSELL_HOME", environment["HANDSELL_HOME"])
        config = load_plain_config(source)
        try:
            done = subprocess.run(up, env=environment, capture_output=True, text=True, timeout=540)
            assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
            with httpx.Client(base_url=service.service_url(config), timeout=30) as client:
                yield client, config
        finally:
            subprocess.run([*up[:3], "down", str(source)], env=environment, capture_output=True, timeout=120)
            shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)


def load_plain_config(source):
    """The config as this process reads it, which does not have the package."""
    text = source.read_text()
    plain = source.with_name("plain.toml")
    plain.write_text(text[: text.index("[retrieval.latest]")])
    return load_config(plain)


def recommend(client, user):
    answer = client.get(f"/v1/users/{user}/recommendations", params={"count": 10, "include": "metadata"}).json()
    assert answer["degraded"] == [] and len(answer["items"]) == 10
    return answer


def explain(client, user, item):
    return client.get("/v1/explain", params={"user_id": user, "item_id": item, "features": 200}).json()


def feature_values(explanation):
    return {c["feature"]: c["value"] for c in explanation["ranking"]["contributions"]}


def test_the_retriever_finds_items_that_are_served(shop):
    client, _ = shop
    sources = {source for user in USERS for item in recommend(client, user)["items"] for source in item["sources"]}
    assert {"latest", "item_knn"} <= sources


def test_the_features_are_columns_of_the_ranker(shop):
    client, config = shop
    store = BundleStore(Layout(config.state).bundles)
    assert set(store.show(store.live()).features) >= FEATURES | {"src_latest_rank", "src_latest_z"}
    values = feature_values(explain(client, USERS[0], recommend(client, USERS[0])["items"][0]["item_id"]))
    assert 0 <= values["user_evening_share"] <= 1 and values["creator_of_last_item"] in (0, 1)


def test_posted_events_change_both_features_in_the_next_request(shop):
    """As many listens as the history holds, all of the same part of the day; the last one is of the explained item."""
    client, config = shop
    user, item = next(
        (user, item["item_id"])
        for user in USERS
        for item in recommend(client, user)["items"]
        if (values := feature_values(explain(client, user, item["item_id"])))["creator_of_last_item"] == 0
        and 0 < values["user_evening_share"] < 1
    )
    popular = [i["item_id"] for i in client.get("/v1/popular", params={"count": 30}).json()["items"]]
    items = [*(i for i in popular if i != item), item][-config.features.history_length :]
    now = time.time_ns() // 1_000_000
    events = [
        {"type": "listen", "user_id": user, "item_id": i, "timestamp": now - 100 * (len(items) - n)}
        for n, i in enumerate(items)
    ]
    answer = client.post("/v1/events", json={"events": events}).json()
    assert answer["accepted"] == config.features.history_length
    values = feature_values(explain(client, user, item))
    assert values["creator_of_last_item"] == 1 and values["user_evening_share"] in (0, 1)


def test_the_rule_holds_in_every_slate_and_moves_items(shop):
    client, _ = shop
    kept, moved = 0, 0
    for user in USERS:
        answer = recommend(client, user)
        assert answer["release"]["rules"]
        years = [item["metadata"]["year"] for item in answer["items"]]
        near = any(years[a] == year for b, year in enumerate(years) for a in range(max(b - GAP, 0), b))
        assert not near or "rule:years" in answer["relaxed"]
        kept += not near
    for item in recommend(client, USERS[0])["items"]:
        moved += "business_rules" in explain(client, USERS[0], item["item_id"])["reranking"]["moved_by"]
    assert kept > len(USERS) // 2 and moved > 0
