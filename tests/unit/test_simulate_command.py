"""`handsell simulate`: what it refuses, what it keeps, and how it leaves the environment."""

import os
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from deployment import write_config
from handsell.cli.app import app
from handsell.core.errors import ConfigError
from handsell.local import simulation
from handsell.local.simulation import SimulationOptions, simulate_policies

OPTIONS = SimulationOptions(days=2, users=40, seed=3)
QUIET = Console(file=StringIO())


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))
    return write_config(tmp_path)


def test_bounds_need_no_deployment_and_are_kept(config, monkeypatch):
    first = simulate_policies(config, OPTIONS, ["random"], QUIET)
    assert list(first["policies"]) == ["random"]

    def fail(*_):
        raise AssertionError("it is finished already")

    monkeypatch.setattr(simulation, "RandomPolicy", fail)
    both = simulate_policies(config, OPTIONS, ["oracle", "random"], QUIET)
    assert list(both["policies"]) == ["random", "oracle"]
    assert both["policies"]["random"] == first["policies"]["random"]
    assert (
        both["policies"]["oracle"]["totals"]["satisfaction"] > 2 * first["policies"]["random"]["totals"]["satisfaction"]
    )
    (page,) = (config.state / "simulations").glob("*/report.html")
    assert "oracle" in page.read_text()


def test_other_settings_do_not_meet_kept_results(config, monkeypatch):
    one = simulate_policies(config, OPTIONS, ["random"], QUIET)
    other = simulate_policies(config, SimulationOptions(days=2, users=40, seed=4), ["random"], QUIET)
    assert one["policies"]["random"] != other["policies"]["random"]
    assert len(list((config.state / "simulations").iterdir())) == 2


def test_a_simulation_keeps_its_state_and_stores_apart(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HANDSELL_EVENT_STORE", "postgresql://production/shop")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    before = dict(os.environ)
    with pytest.raises(KeyError), simulation._isolate(tmp_path / "apart"):
        assert config.state == tmp_path / "apart" / config.name
        assert os.environ["HANDSELL_EVENT_STORE"] == "sqlite" and "RAY_ADDRESS" not in os.environ
        raise KeyError
    assert dict(os.environ) == before


def test_policies_differ_from_the_config_only_as_they_say(config):
    plain, popularity = simulation._configure(config, "funnel"), simulation._configure(config, "popularity")
    explores = simulation._configure(config, "exploration").reranking.exploration
    assert plain.reranking.exploration.share == 0 and plain.ranking.enabled and not popularity.ranking.enabled
    assert (explores.share, explores.new_items.share) == (simulation.SHARE, simulation.NEW_SHARE)
    own = simulation.with_exploration(config, 0.3, 0.0)
    assert simulation._configure(own, "exploration") == own
    assert simulation._configure(own, "funnel").reranking.exploration.share == 0


def test_unknown_policies_and_data_without_known_tastes_are_refused(config):
    with pytest.raises(ConfigError, match=r"--policies: expected some of popularity, .* got magic"):
        simulate_policies(config, OPTIONS, ["funnel", "magic"])
    tables = config.model_copy(update={"data": config.data.model_copy(update={"format": "movielens"})})
    with pytest.raises(
        ConfigError, match=r"expected data.format = world, whose users have known tastes, got movielens"
    ):
        simulate_policies(tables, OPTIONS, ["funnel"])
    with pytest.raises(ConfigError, match="users: expected 1 to 150, the listeners of the world, got 151"):
        simulate_policies(config, SimulationOptions(days=2, users=151), ["random"])


def test_the_command_passes_its_options_on(config, monkeypatch):
    seen = []
    monkeypatch.setattr(simulation, "simulate_policies", lambda *arguments: seen.append(arguments[1:]))
    monkeypatch.setattr(simulation, "simulate_service", lambda *arguments: seen.append(arguments[1:]))
    command = ["simulate", str(config.source), "--days", "3", "--users", "50", "--retrain-every", "2", "--seed", "9"]
    assert CliRunner().invoke(app, [*command, "--policies", "funnel, oracle", "--gate"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--url", "http://shop"]).exit_code == 0
    options = SimulationOptions(3, 50, 9, 2, gate=True)
    assert seen == [(options, ["funnel", "oracle"]), (SimulationOptions(3, 50, 9, 2), "http://shop")]
