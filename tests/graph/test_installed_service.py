"""A project of the installed wheel, in an empty folder: init, up, ask, down, with nothing of the checkout."""

import json
import shutil

import httpx
import pytest
import yaml

from handsell.config import load_config
from handsell.local import cluster
from handsell.local.service import service_url
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

[jobs]
gcs_port = {gcs}
dashboard_port = {dashboard}
num_cpus = 2
"""
USER = "u0000005"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> InstalledWheel:
    return install_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def project(wheel, tmp_path_factory):
    """(folder, output of `up`) of a project with a small world and a changed Serve file; it runs until the end."""
    folder = tmp_path_factory.mktemp("project")
    made = wheel.run("handsell", "init", "shop", folder=folder)
    assert made.returncode == 0, made.stderr
    serving, gcs, dashboard = free_ports(3)
    source = folder / "shop.toml"
    text = source.read_text().replace('format = "world"\n', WORLD)
    text = text.replace("[serving]\n", f"[serving]\nport = {serving}\ndeadline_ms = 20000\n")
    source.write_text(text + SETTINGS.format(gcs=gcs, dashboard=dashboard))
    serve_file = folder / "deployments" / "serve" / "graph.yaml"
    serve_file.write_text(serve_file.read_text().replace("max_queued_requests: 256", "max_queued_requests: 250"))
    try:
        up = wheel.run("handsell", "up", "shop.toml", folder=folder, timeout_s=540)
        assert up.returncode == 0, up.stdout[-3_000:] + up.stderr[-3_000:]
        yield folder, up.stdout
    finally:
        wheel.run("handsell", "down", "shop.toml", folder=folder)
        shutil.rmtree(cluster.ray_folder(load_config(source)), ignore_errors=True)


def test_up_asks_for_one_user_and_uses_nothing_of_the_checkout(project):
    folder, printed = project
    assert "10/10 show" in printed and "recommendations for user" in printed
    logs = [path for path in (folder / ".handsell" / "shop" / "logs").rglob("*") if path.is_file()]
    assert logs and not [path for path in logs if f"{ROOT}/src" in path.read_text(errors="replace")]


def test_the_projects_own_serve_file_is_deployed(project):
    folder, _ = project
    written = yaml.safe_load((folder / ".handsell" / "shop" / "run" / "serve-graph.yaml").read_text())
    application, console = written["applications"]
    assert application["deployments"][0]["max_queued_requests"] == 250
    assert console["name"] == "console"
    assert application["args"]["config"] == str(folder / "shop.toml")


def test_it_answers_and_takes_events(wheel, project):
    folder, _ = project
    asked = wheel.run("handsell", "recommend", "shop.toml", USER, "--count", "3", folder=folder)
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert len(answer["items"]) == 3 and answer["degraded"] == []
    page = httpx.get(f"{service_url(load_config(folder / 'shop.toml'))}/", follow_redirects=True, timeout=30)
    assert page.status_code == 200 and page.url.path.startswith("/console")
    event = {"event_id": "first", "type": "listen", "user_id": USER, "item_id": answer["items"][0]["item_id"]}
    url = service_url(load_config(folder / "shop.toml"))
    posted = httpx.post(f"{url}/v1/events", json={"events": [event]}, timeout=30)
    assert posted.status_code == 202 and posted.json()["accepted"] == 1


def test_down_stops_all_of_it(wheel, project):
    """The last test: it ends the service of the others."""
    folder, _ = project
    config = load_config(folder / "shop.toml")
    assert cluster.find_running(config) is not None
    down = wheel.run("handsell", "down", "shop.toml", folder=folder)
    assert down.returncode == 0 and down.stdout.startswith("stopped "), down.stdout + down.stderr
    assert cluster.find_running(config) is None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service_url(config)}/healthz", timeout=5)
