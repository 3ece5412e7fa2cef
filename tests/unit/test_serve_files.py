"""The Serve files say nothing that Serve would silently ignore, and name what the app really deploys."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from handsell.config import load_config
from handsell.console import deployment as console_deployment
from handsell.console.config import ConsoleConfig
from handsell.console.deployment import ConsoleArgs
from handsell.console.deployment import build as build_console
from handsell.core.errors import ConfigError
from handsell.events.store.opening import STORE_VARIABLE
from handsell.local.service import write_serve_file
from handsell.serving.http import app
from handsell.serving.http.app import AppArgs, build
from serve_keys import find_unknown_keys
from serving_world import write_world

FOLDER = Path(__file__).parents[2] / "deployments" / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))
DEPLOYMENTS = {
    "graph": {"Gateway", "Candidates", "Ranking", "Reranking", "EventLog", "StreamProcessor", "ExperimentGuard"},
    "fused": {"Gateway", "EventLog", "StreamProcessor", "ExperimentGuard"},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_key_is_one_that_serve_knows(path):
    document = yaml.safe_load(path.read_text())
    assert find_unknown_keys(document) == []
    ServeDeploySchema.model_validate(document)
    document["applications"][0]["deployments"][0]["autoscaling_config"]["min_replica"] = 1
    assert [k.split(".")[-1] for k in find_unknown_keys(document)] == ["min_replica"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_file_fits_the_app(path):
    application, console = yaml.safe_load(path.read_text())["applications"]
    assert console["route_prefix"] == "/console" and ConsoleArgs.model_validate(console["args"])
    (pages,) = console["deployments"]
    assert (pages["name"], pages["num_replicas"], pages["ray_actor_options"]) == ("Console", 1, {"num_cpus": 0})
    args = AppArgs.model_validate(application["args"])
    assert args.topology == path.stem
    assert {d["name"] for d in application["deployments"]} == DEPLOYMENTS[path.stem]
    for deployment in application["deployments"]:
        assert deployment["max_queued_requests"] > 0 and deployment["health_check_timeout_s"] <= 5
        writer = deployment["name"] in ("EventLog", "StreamProcessor", "ExperimentGuard")
        assert deployment.get("num_replicas") == (1 if writer else None)
        assert ("autoscaling_config" in deployment) != writer


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_listens_on_loopback_and_leaves_cpu_for_training(path):
    document = yaml.safe_load(path.read_text())
    assert document["http_options"]["host"] == "127.0.0.1"
    least = [
        d["ray_actor_options"]["num_cpus"] * d.get("autoscaling_config", {"min_replicas": 1})["min_replicas"]
        for d in document["applications"][0]["deployments"]
    ]
    assert sum(least) <= 1


def test_with_postgresql_the_local_service_deploys_no_event_log(tmp_path, monkeypatch):
    config = load_config(write_world(tmp_path).config.source)
    for url, deploys in (("", True), ("postgresql://shop@db/events", False)):
        monkeypatch.setenv(STORE_VARIABLE, url)
        path = write_serve_file(config, "graph")
        application, console = yaml.safe_load(path.read_text())["applications"]
        assert ConsoleArgs.model_validate(console["args"]).config == str(config.source)
        assert console["runtime_env"]["env_vars"][STORE_VARIABLE] == url
        assert ("EventLog" in {d["name"] for d in application["deployments"]}) == deploys
        assert AppArgs.model_validate(application["args"]).event_log == deploys
        assert application["runtime_env"]["env_vars"][STORE_VARIABLE] == url
        assert path.stat().st_mode & 0o077 == 0
    monkeypatch.delenv(STORE_VARIABLE)
    args = AppArgs(config=str(config.source), event_log=False)
    with pytest.raises(ConfigError, match=r"args\.event_log: expected true for an event store in SQLite"):
        build(args)


def test_the_console_can_be_left_out(world):
    config = world.config.model_copy(update={"console": ConsoleConfig(enabled=False)})
    (application,) = yaml.safe_load(write_serve_file(config, "fused").read_text())["applications"]
    assert application["name"] == "handsell"


OPEN = 'access.open = "anyone may call"'


@pytest.mark.parametrize(
    ("access", "host", "serve_host", "starts"),
    [
        ("", "127.0.0.1", None, True), ("", "127.0.0.1", "0.0.0.0", False), ("", "0.0.0.0", None, False),
        ("", "0.0.0.0", "127.0.0.1", True), (OPEN, "127.0.0.1", "0.0.0.0", True), (OPEN, "0.0.0.0", None, True),
        ('access.keys = "required"', "0.0.0.0", "0.0.0.0", True),
    ],
)  # fmt: skip
def test_a_service_that_others_can_reach_does_not_start_without_keys(
    world, monkeypatch, access, host, serve_host, starts
):
    source = world.config.source.with_name("reached.toml")
    toml = world.config.source.read_text().replace("[serving]", f'[serving]\nhost = "{host}"')
    source.write_text(f"{access}\n{toml}")
    monkeypatch.setattr(app, "find_host", lambda: serve_host)
    monkeypatch.setattr(console_deployment, "find_host", lambda: serve_host)
    args = AppArgs(config=str(source))
    if starts:
        assert build(args) is not None and build_console(ConsoleArgs(config=str(source))) is not None
        return
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached"):
        build_console(ConsoleArgs(config=str(source)))
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached .* access\.open = \"anyone may call\""):
        build(args)


def test_the_local_service_is_not_deployed_beyond_loopback_without_keys(world):
    config = world.config.model_copy(update={"serving": world.config.serving.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(ConfigError, match=r"and access\.keys is off"):
        write_serve_file(config, "graph")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))
