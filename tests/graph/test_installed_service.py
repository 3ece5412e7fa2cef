"""A project of the installed wheel, in an empty folder, beside a package of plug-ins: init, up, ask, down.

Nothing of the checkout is used. The package, tests/plugins/handsell_shop, has a retriever, a user feature, a cross
feature and a rule, each at work here; nothing in src/ knows of it.
"""

import json
import shutil
import time

import httpx
import pytest
import yaml

from handsell.bundles.store import BundleStore
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.local import cluster
from handsell.local.service import service_url
from handsell.testing.rule_catalog import write_rule
from installed_plugins import install_package
from installed_wheel import ROOT, InstalledWheel, install_wheel
from open_sockets import free_ports

pytestmark = pytest.mark.slow  # a whole `handsell up`
WORLD = """format = "world"
world = { users = 150, items = 400, artists = 60, tags = 12, days = 20, sessions_per_user_week = 5.0 }
"""
SETTINGS = """
[split]
ranker_days = 4
validation_days = 2
test_days = 2
max_requests = 200

[retrieval.two_tower]
enabled = false

[ranking]
ranked = 40
negatives = 50

[reranking]
rules = "rules.toml"

[jobs]
gcs_port = {gcs}
dashboard_port = {dashboard}
num_cpus = 2
"""
PLUGIN = """
[retrieval.latest]
enabled = true
k = 60
"""
FEATURES = {"user_evening_share", "creator_of_last_item"}
GAP = 2
USERS = [f"u{n:07d}" for n in range(0, 150, 5)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> InstalledWheel:
    """Handsell and the package of plug-ins, installed into one folder."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = install_wheel(folder)
    install_package(folder)
    return wheel


@pytest.fixture(scope="module")
def project(wheel, tmp_path_factory):
    """(folder, output of `up`, config) of a running project with a small world, a plug-in and a changed Serve file."""
    folder = tmp_path_factory.mktemp("project")
    made = wheel.run("handsell", "init", "shop", folder=folder)
    assert made.returncode == 0, made.stderr
    serving, gcs, dashboard = free_ports(3)
    source = folder / "shop.toml"
    text = source.read_text().replace('format = "world"\n', WORLD)
    text = text.replace("[serving]\n", f"[serving]\nport = {serving}\ndeadline_ms = 20000\n")
    text = text.replace("[features]\n", "[features]\nhistory_length = 20\n")
    text += SETTINGS.format(gcs=gcs, dashboard=dashboard)
    source.write_text(text + PLUGIN)
    (folder / "plain.toml").write_text(text)
    (folder / "rules.toml").write_text(write_rule("years", "apart", items="item.year > 0", column="year", gap=GAP))
    serve_file = folder / "deployments" / "serve" / "graph.yaml"
    serve_file.write_text(serve_file.read_text().replace("max_queued_requests: 256", "max_queued_requests: 250"))
    config = load_config(folder / "plain.toml")  # this process does not have the package
    try:
        up = wheel.run("handsell", "up", "shop.toml", folder=folder, timeout_s=540)
        assert up.returncode == 0, up.stdout[-3_000:] + up.stderr[-3_000:]
        yield folder, up.stdout, config
    finally:
        wheel.run("handsell", "down", "shop.toml", folder=folder)
        shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)


@pytest.fixture(scope="module")
def client(project):
    with httpx.Client(base_url=service_url(project[2]), timeout=30) as client:
        yield client


def test_up_asks_for_one_user_and_uses_nothing_of_the_checkout(project):
    folder, printed, _ = project
    assert "10/10 show" in printed and "recommendations for user" in printed
    logs = [path for path in (folder / ".handsell" / "shop" / "logs").rglob("*") if path.is_file()]
    assert logs and not [path for path in logs if f"{ROOT}/src" in path.read_text(errors="replace")]


def test_the_projects_own_serve_file_is_deployed(project):
    folder, *_ = project
    written = yaml.safe_load((folder / ".handsell" / "shop" / "run" / "serve-graph.yaml").read_text())
    application, console = written["applications"]
    assert application["deployments"][0]["max_queued_requests"] == 250
    assert console["name"] == "console"
    assert application["args"]["config"] == str(folder / "shop.toml")


def test_it_answers_and_takes_events(wheel, project, client):
    asked = wheel.run("handsell", "recommend", "shop.toml", USERS[1], "--count", "3", folder=project[0])
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert len(answer["items"]) == 3 and answer["degraded"] == []
    page = client.get("/", follow_redirects=True)
    assert page.status_code == 200 and page.url.path.startswith("/console")
    event = {"event_id": "first", "type": "listen", "user_id": USERS[1], "item_id": answer["items"][0]["item_id"]}
    posted = client.post("/v1/events", json={"events": [event]})
    assert posted.status_code == 202 and posted.json()["accepted"] == 1


def recommend(client, user):
    answer = client.get(f"/v1/users/{user}/recommendations", params={"count": 10, "include": "metadata"}).json()
    assert answer["degraded"] == [] and len(answer["items"]) == 10
    return answer


def explain(client, user, item):
    return client.get("/v1/explain", params={"user_id": user, "item_id": item, "features": 200}).json()


def feature_values(explanation):
    return {c["feature"]: c["value"] for c in explanation["ranking"]["contributions"]}


def test_the_retriever_finds_items_that_are_served(client):
    sources = {source for user in USERS for item in recommend(client, user)["items"] for source in item["sources"]}
    assert {"latest", "item_knn"} <= sources


def test_the_features_are_columns_of_the_ranker(client, project):
    config: Config = project[2]
    store = BundleStore(Layout(config.state).bundles)
    assert set(store.show(store.live()).features) >= FEATURES | {"src_latest_rank", "src_latest_z"}
    values = feature_values(explain(client, USERS[0], recommend(client, USERS[0])["items"][0]["item_id"]))
    assert 0 <= values["user_evening_share"] <= 1 and values["creator_of_last_item"] in (0, 1)


def test_posted_events_change_both_features_in_the_next_request(client, project):
    """As many listens as the history holds, all of the same part of the day; the last one is of the explained item."""
    config: Config = project[2]
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


def test_the_rule_holds_in_every_slate_and_moves_items(client):
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


def test_down_stops_all_of_it(wheel, project):
    """The last test: it ends the service of the others."""
    folder, _, config = project
    assert cluster.find_running(config) is not None
    down = wheel.run("handsell", "down", "shop.toml", folder=folder)
    assert down.returncode == 0 and down.stdout.startswith("stopped "), down.stdout + down.stderr
    assert cluster.find_running(config) is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service_url(config)}/healthz", timeout=5)
