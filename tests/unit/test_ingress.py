"""HAProxy before replicas that Serve lists: every request is answered, whatever ends; nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from handsell.access.config import AccessConfig
from handsell.config import load_config
from handsell.core.errors import ConfigError, HandsellError
from handsell.core.paths import find_ray_folder
from handsell.core.ray_token import create_token
from handsell.local import service
from handsell.local.ingress import process
from handsell.local.ingress.haproxy_config import render_config
from handsell.local.ingress.runtime_socket import list_places
from handsell.local.ingress.supervisor import read_routes
from handsell.serving.config import ServingConfig
from open_sockets import free_ports, list_listeners

OPEN = AccessConfig(open="anyone may call")
HAPROXY = process.find_haproxy()
pytestmark = [
    pytest.mark.skipif(HAPROXY is None, reason="no HAProxy on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of processes that outlive the one that started them
]


class HttpServer(ThreadingHTTPServer):
    """A server of this process that calls `answer(path, headers)` for status and body."""

    daemon_threads = True

    def __init__(self, answer):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, body = answer(self.path, self.headers)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """HAProxy closes the connection of a check as soon as it knows the status."""

    @property
    def port(self) -> int:
        return self.server_address[1]

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class FakeReplica(HttpServer):
    """A replica that says its name, and is stopping if told so."""

    def __init__(self, name: str):
        self.name, self.is_stopping, self.seconds = name, False, 0.0
        super().__init__(self._answer)

    def _answer(self, path, headers):
        if path == "/-/healthz":
            return (503 if self.is_stopping else 200), b""
        time.sleep(self.seconds)
        return 200, self.name.encode()


def describe_group(prefix: str, *replicas: FakeReplica, name: str = "SERVE_REPLICA::handsell#Gateway#x") -> dict:
    targets = [{"ip": "127.0.0.1", "port": one.port, "name": name} for one in replicas]
    return {"protocol": "HTTP", "route_prefix": prefix, "targets": targets}


@dataclass
class FrontedShop:
    """A deployment with a stand-in for Ray's head and the dashboard's list of replicas."""

    config: object
    token: Path
    head: subprocess.Popen
    listed: list[dict] = field(default_factory=list)

    def list_replicas(self, path, headers):
        if headers["Authorization"] != f"Bearer {self.token.read_text()}":
            return 401, b""
        return 200, json.dumps({"target_groups": self.listed}).encode()

    def start(self, dashboard: HttpServer) -> None:
        process.start(self.config, self.head.pid, f"http://127.0.0.1:{dashboard.port}", self.token)

    def get(self, path: str = "/") -> httpx.Response:
        return httpx.get(f"{service.service_url(self.config)}{path}", timeout=10, trust_env=False)

    def wait_for(self, path: str, expected: set[str]) -> None:
        """Wait until exactly these replicas answer."""
        until = time.monotonic() + 30
        with ThreadPoolExecutor(8) as callers:  # of requests at once: one after another have one replica
            while {answer.text for answer in callers.map(self.get, [path] * 8)} != expected:
                assert time.monotonic() < until, (path, expected)
                time.sleep(0.1)


@pytest.fixture
def deployment(tmp_path) -> Iterator[FrontedShop]:
    source = tmp_path / "shop.toml"
    source.write_text(f'name = "shop"\n[serving]\nport = {free_ports(1)[0]}\n')
    config = load_config(source)
    (config.state / "logs").mkdir(parents=True)
    head = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    made = FrontedShop(config, create_token(config.state / "run" / "ray.token"), head)
    yield made
    process.stop(config)
    head.kill()
    head.wait()
    shutil.rmtree(find_ray_folder(config.state), ignore_errors=True)


@pytest.fixture
def dashboard(deployment) -> Iterator[HttpServer]:
    server = HttpServer(deployment.list_replicas)
    yield server
    server.end()


def find_pids(deployment) -> tuple[int, int]:
    """Return the supervisor and HAProxy."""
    pids = {psutil.Process(pid).name(): pid for pid in process.list_pids(deployment.config)}
    haproxy = pids.pop("haproxy")
    return next(iter(pids.values())), haproxy


def test_requests_follow_the_list_and_replicas_that_stop_get_none(deployment, dashboard):
    deployment.start(dashboard)
    refused = deployment.get("/v1/popular")
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    assert refused.headers["retry-after"] == "1" and refused.json()["code"] == "no_gateway"
    first, second, pages = FakeReplica("first"), FakeReplica("second"), FakeReplica("pages")
    first.seconds = second.seconds = 0.05
    deployment.listed = [describe_group("/", first), describe_group("/console", pages)]
    deployment.wait_for("/v1/popular", {"first"})
    deployment.wait_for("/console/explore", {"pages"})
    assert [deployment.get(path).text for path in ("/console", "/consoles")] == ["pages", "first"]
    deployment.listed[0] = describe_group("/", first, second)
    deployment.wait_for("/", {"first", "second"})
    assert len({deployment.get("/").text for _ in range(8)}) == 1  # one replica is enough for one after another
    first.is_stopping = True  # before Serve's list is read again
    deployment.wait_for("/", {"second"})
    deployment.listed[0] = describe_group("/", second)
    second.end()
    answers = [deployment.get("/") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    deployment.listed[0] = describe_group("/", third := FakeReplica("third"))
    deployment.wait_for("/", {"third"})
    for one in (first, third, pages):
        one.end()


def test_a_replica_that_answers_stays_while_serve_lists_none_and_serves_proxy_gets_nothing(deployment, dashboard):
    deployment.start(dashboard)
    first, proxy = FakeReplica("first"), FakeReplica("proxy")
    deployment.listed = [describe_group("/", first)]
    deployment.wait_for("/", {"first"})
    deployment.listed = [describe_group("/", proxy, name="SERVE_PROXY_ACTOR-1")]
    time.sleep(2.5)  # longer than between two looks
    assert {deployment.get().text for _ in range(5)} == {"first"}
    first.end()
    assert deployment.get().status_code == 503
    proxy.end()


def test_places_with_replicas_are_told_from_empty_ones(deployment, dashboard):
    first = FakeReplica("first")
    deployment.listed = [describe_group("/", first)]
    deployment.start(dashboard)
    deployment.wait_for("/", {"first"})
    deployment.listed = [describe_group("/", second := FakeReplica("second"))]
    deployment.wait_for("/", {"second"})
    until, socket_path = time.monotonic() + 30, str(find_ray_folder(deployment.config.state) / "haproxy.sock")
    while [one.address[1] for one in list_places(socket_path, "gateway") if not one.is_empty] != [second.port]:
        assert time.monotonic() < until  # the first one, which still answers checks, has lost its place
        time.sleep(0.1)
    first.end()
    second.end()


def test_a_further_route_is_taken_in_without_an_error(deployment, dashboard):
    deployment.start(dashboard)
    first, other = FakeReplica("first"), FakeReplica("other")
    deployment.listed = [describe_group("/", first)]
    deployment.wait_for("/", {"first"})
    deployment.listed.append(describe_group("/shop/search", other))
    until = time.monotonic() + 30
    while (answer := deployment.get("/shop/search/x")).text != "other":
        assert answer.text == "first" and time.monotonic() < until
    assert deployment.get().text == "first"
    first.end()
    other.end()


def test_haproxy_is_started_again_and_outlives_its_supervisor(deployment, dashboard):
    deployment.start(dashboard)
    deployment.listed = [describe_group("/", first := FakeReplica("first"))]
    deployment.wait_for("/", {"first"})
    supervisor, haproxy = find_pids(deployment)
    os.kill(haproxy, signal.SIGKILL)
    assert deployment.get().text == "first"  # the connection waits for the next HAProxy, which knows the replicas
    after, restarted = find_pids(deployment)
    assert after == supervisor and restarted != haproxy
    os.kill(supervisor, signal.SIGKILL)
    assert deployment.get().text == "first"
    deployment.start(dashboard)
    assert not {supervisor, restarted} & set(find_pids(deployment))
    assert deployment.get().text == "first"
    deployment.listed = [describe_group("/", second := FakeReplica("second"))]
    deployment.wait_for("/", {"second"})
    first.end()
    second.end()


@pytest.mark.parametrize("ends", ["stop", "stop without supervisor", "end of the head"])
def test_nothing_is_left_running(deployment, dashboard, ends):
    deployment.start(dashboard)
    pids = find_pids(deployment)
    if ends == "stop without supervisor":
        os.kill(pids[0], signal.SIGKILL)
    if ends == "end of the head":
        deployment.head.kill()
        deployment.head.wait()
    else:
        assert pids[1] in process.stop(deployment.config)
    until = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert process.list_pids(deployment.config) == frozenset()


def test_it_listens_at_the_address_of_the_config_only(deployment, dashboard):
    deployment.start(dashboard)
    found = [each for pid in find_pids(deployment) for each in list_listeners(psutil.Process(pid))]
    assert {(each.ip, each.port) for each in found} == {("127.0.0.1", deployment.config.serving.port)}
    assert Path(process._socket(deployment.config)).stat().st_mode & 0o077 == 0


def test_what_prevents_its_start_is_said(deployment):
    open_to_all = deployment.config.model_copy(update={"serving": ServingConfig(host="0.0.0.0")})
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        process.start(open_to_all, deployment.head.pid, "http://127.0.0.1:1", deployment.token)
    elsewhere = deployment.config.model_copy(update={"serving": ServingConfig(host="192.0.2.1"), "access": OPEN})
    with pytest.raises(HandsellError, match=r"(?s)HAProxy did not start.*Cannot assign"):
        process.start(elsewhere, deployment.head.pid, "http://127.0.0.1:1", deployment.token)


def test_without_haproxy_serves_own_proxy_takes_the_requests(deployment, monkeypatch):
    assert service._describe_address(deployment.config) == {"host": "127.0.0.1", "port": 0}
    monkeypatch.setattr(process, "find_haproxy", lambda: None)
    assert process.choose_ingress(deployment.config) == "plain"
    assert service._describe_address(deployment.config)["port"] == deployment.config.serving.port


def test_a_list_in_another_form_is_an_error_and_grpc_is_left_out():
    group = describe_group("/") | {"protocol": "gRPC"}
    assert read_routes(json.dumps({"target_groups": [group]}).encode()) == {}
    with pytest.raises(KeyError):
        read_routes(b"{}")


@pytest.mark.parametrize("program", sorted({HAPROXY, shutil.which("haproxy")} - {None}))
def test_haproxy_takes_the_configuration(program, tmp_path):
    routes = {"/": [("127.0.0.1", 30_000)], "/console": [], "/a/b": []}
    path = tmp_path / "haproxy.cfg"
    server = socket.create_server(("127.0.0.1", 0))
    path.write_text(render_config(server.fileno(), str(tmp_path / "socket"), routes))
    command = [program, "-c", "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[server.fileno()])
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
