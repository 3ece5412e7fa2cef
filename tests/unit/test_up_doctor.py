"""`make up` runs the doctor and checks ports before it starts anything."""

import io
import os
import socket

import pytest
from rich.console import Console

from handsell.core.errors import HandsellError
from handsell.local import cluster, up
from handsell.local.ports import find_listener, require_free_port

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events.csv"
[events.types]
view = { weight = WEIGHT }
[split]
ranker_days = 2
validation_days = 1
test_days = 1
[serving]
port = PORT
clock = "data"
[jobs]
gcs_port = GCS
dashboard_port = DASHBOARD
"""
DAY = 86_400


class StartedError(Exception):
    """Raised where Ray would start."""


@pytest.fixture
def free():
    """Function that returns ports that are free."""

    def draw(n: int) -> list[int]:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        return ports

    return draw


@pytest.fixture
def shop(tmp_path, configured, monkeypatch, free):
    """Function from settings to what `make up` prints before Ray starts, and the error that ends it."""
    lines = [f"u{k % 30},i{k * 7 % 40},{1_767_225_600 + k * 10 * DAY // 1_500},view" for k in range(1_500)]
    (tmp_path / "events.csv").write_text("user_id,item_id,time,type\n" + "\n".join(lines) + "\n")

    def start(config):
        raise StartedError

    monkeypatch.setattr(cluster, "launch", start)
    ports = dict(zip(("PORT", "GCS", "DASHBOARD"), free(3), strict=True))

    def run(**given):
        text = SHOP
        for name, value in ({"WEIGHT": 1.0} | ports | given).items():
            text = text.replace(name, str(value))
        out = io.StringIO()
        with pytest.raises((HandsellError, StartedError)) as raised:
            up.start_everything(configured(text), console=Console(file=out, width=200))
        return out.getvalue(), raised.value

    return run


def test_a_deployment_that_is_not_ready_ends_before_ray_starts(shop):
    out, error = shop(WEIGHT=-1.0)
    assert "no event type with seen = true has a positive weight (view -1)" in out
    assert "step 1/10 (doctor) failed: not ready to train: correct the 1 error above" in str(error)


def test_the_doctor_is_skipped_where_nothing_has_changed(shop, tmp_path):
    out, error = shop()
    assert isinstance(error, StartedError) and "1/10 doctor: checking" in out and "ready to train, " in out
    out, error = shop()
    assert isinstance(error, StartedError) and "1/10 doctor: unchanged, skipped" in out
    assert "1/10 doctor: checking" in shop(WEIGHT=2.0)[0]
    with (tmp_path / "events.csv").open("a") as more:
        more.write("u1,i1,1767225600,buy\n")
    out, error = shop(WEIGHT=2.0)
    assert "unknown event type (1)" in out and "not ready" in str(error)


def test_a_warning_does_not_end_it(shop, tmp_path):
    text = (tmp_path / "events.csv").read_text()
    (tmp_path / "events.csv").write_text(text + ",i1,1767225600,view\n")
    out, error = shop()
    assert isinstance(error, StartedError) and "warning null user_id (1)" in out


@pytest.mark.parametrize("name", ["PORT", "GCS", "DASHBOARD"])
def test_a_port_of_another_program_is_named_with_its_pid(shop, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, error = shop(**{name: port})
        setting = {"PORT": "serving.port", "GCS": "jobs.gcs_port", "DASHBOARD": "jobs.dashboard_port"}[name]
        assert f"port {port} is taken by another program (pid {os.getpid()}, " in str(error)
        assert f"set {setting} in the config to a free port" in str(error)


@pytest.mark.parametrize(
    ("ports", "said"),
    [
        ({"GCS": 10_002}, "jobs.gcs_port = 10002 is among the ports 10002 to 19999"),
        ({"DASHBOARD": 19_999}, "jobs.dashboard_port = 19999 is among the ports"),
        ({"PORT": 15_000}, "serving.port = 15000 is among the ports"),
        ({"PORT": 20_001, "GCS": 20_001}, "serving.port and jobs.gcs_port are all 20001"),
    ],
)
def test_ports_that_collide_by_the_config_are_errors(shop, ports, said):
    out, error = shop(**ports)
    assert said in out and "not ready to train" in str(error)


def test_own_processes_may_hold_the_port_and_a_wrong_host_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        require_free_port("serving.port", "127.0.0.1", port, frozenset({os.getpid()}))
        assert find_listener(port).pid == os.getpid()
    require_free_port("serving.port", "127.0.0.1", port)
    with pytest.raises(HandsellError, match=r"cannot listen on 192\.0\.2\.1:\d+ .*serving\.port, or the host"):
        require_free_port("serving.port", "192.0.2.1", port)
