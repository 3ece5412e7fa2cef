"""Sockets, logs and traces of `make up` while it serves: no socket beyond loopback runs code without the token."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import RunningService

from handsell.config import load_config
from handsell.core.ray_token import read_token
from handsell.local import cluster, service
from handsell.local.ingress import process as ingress
from handsell.serving.telemetry.metric_table import RAY_METRICS
from open_sockets import find_open_sockets, free_ports, list_listeners
from otlp_receiver import otlp_receiver
from serving_world import write_world

TESTS = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent
REPLICA = re.compile(r"ray::ServeReplica:(?:handsell|console):(?P<deployment>\w+)")


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-secret-7c1e",
    "HANDSELL_LOG_KEY": "log-key-4b6d-of-this-deployment",
    "OTEL_EXPORTER_OTLP_HEADERS": "x-token=otlp-secret-93fa",
}
API_KEY = "hs_abcdefghij_api-key-secret-51c8"
PEOPLE = ["anna@example.com", "b/ert@example.com"]
TRACE = "5" * 32


@pytest.fixture(scope="module")
def receiver():
    with otlp_receiver() as received:
        yield received


@pytest.fixture(scope="module")
def config(tmp_path_factory, receiver):
    """A deployment with a bundle, without Feast, on free ports."""
    serving, gcs, dashboard = free_ports(3)
    source = write_world(tmp_path_factory.mktemp("shop"), serving).config.source
    with source.open("a") as file:
        file.write(f"[jobs]\ngcs_port = {gcs}\ndashboard_port = {dashboard}\nnum_cpus = 2\nobject_store_mib = 100\n")
        file.write(f'[tracing]\nendpoint = "{receiver.endpoint}"\n[logging]\nrequests = true\n')
    return load_config(source)


@pytest.fixture(scope="module")
def head(config):
    """A local cluster that serves the graph, started by the functions of `make up`, in an environment with secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("RAY_SERVE_LOG_TO_STDERR", "0")  # as behind HAProxy: Serve replaces sys.stderr of replicas
        started = cluster.start(config)
    try:
        path = service.write_serve_file(config, "graph")
        document = yaml.safe_load(path.read_text())
        application = document["applications"][0]
        application["import_path"] = "shop_application:build"  # the rows of users come from a file
        application["runtime_env"]["env_vars"]["PYTHONPATH"] = str(TESTS)
        path.write_text(yaml.safe_dump(document))
        service.send_serve_file(path, started)
        service.wait_until_ready(config)
        yield started
    finally:
        cluster.stop(config)
        shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)


def find_holders(config, text: str) -> list[Path]:
    """Return the files of the cluster and of the deployment that contain a text."""
    folders = (cluster.ray_folder(config), config.state)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20
    return [path for path in files if text.encode() in path.read_bytes()]


def read_lines(config) -> list[dict]:
    """Return handsell's own log lines of all replicas."""
    folder = cluster.ray_folder(config)
    files = {path.resolve() for path in folder.rglob("worker-*.err")}
    lines = [line for path in files for line in path.read_text(errors="replace").splitlines()]
    return [json.loads(line) for line in lines if line.startswith('{"time": ') and '"process": ' in line]


@pytest.fixture(scope="module")
def token(head):
    return read_token(Path(head.token))


def test_calls_between_deployments_succeed(head, config):
    answer = httpx.get(f"{service.service_url(config)}/v1/users/u3/recommendations", timeout=30).json()
    assert len(answer["items"]) == 10 and answer["degraded"] == []


def test_beyond_loopback_only_replicas_listen_and_require_the_token(head, config, token):
    pids = {head.pid, *ingress.list_pids(config)}
    listeners = [listener for pid in pids for listener in list_listeners(psutil.Process(pid))]
    direct = {listener.name for listener in listeners if listener.port in range(30_000, 31_000)}
    assert {REPLICA.match(name)["deployment"] for name in direct} == {"Gateway", "Console"}
    assert {listener.pid for listener in listeners if listener.port == config.serving.port} == pids - {head.pid}
    assert not [listener for listener in listeners if "ProxyActor" in listener.name]
    beyond = [listener for listener in listeners if not listener.on_loopback]
    names = [REPLICA.match(listener.name) for listener in beyond]
    assert all(names), beyond
    expected = {
        "Gateway", "Candidates", "Ranking", "Reranking", "EventLog", "StreamProcessor", "ExperimentGuard", "Console",
    }  # fmt: skip
    assert {name["deployment"] for name in names} == expected
    assert find_open_sockets(beyond, token) == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/serve/applications/")]
)
def test_the_dashboard_refuses_requests_without_a_token(head, method, path):
    job = {"entrypoint": "true"} if method == "POST" else None
    url = head.dashboard + path
    assert httpx.request(method, url, json=job, timeout=30).status_code == 401
    wrong = {"Authorization": "Bearer " + "0" * 64}
    assert httpx.request(method, url, json=job, headers=wrong, timeout=30).status_code == 403
    assert httpx.request(method, url, json=job, headers=head.headers, timeout=30).status_code == 200


def test_the_token_is_only_in_its_file(head, config, token):
    """It is not in the dashboard, in a log, in an environment or on a command line."""
    with httpx.Client(base_url=head.dashboard, headers=head.headers, timeout=30) as client:
        for path in ("/api/serve/applications/", "/api/jobs/", "/api/v0/workers?detail=1", "/api/v0/actors?detail=1"):
            told = client.get(path)
            assert told.status_code == 200 and token not in told.text, path
    assert find_holders(config, token) == [Path(head.token)]
    root = psutil.Process(head.pid)
    looked_at = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            assert token not in str(process.environ().values()) + str(process.cmdline())
            looked_at += 1
    assert looked_at > 10


def test_the_console_answers_on_the_same_port_and_asks_the_service(head, config):
    assert service.wait_for_console(config) == f"console at {service.console_url(config)}"
    with httpx.Client(base_url=service.service_url(config), timeout=30, follow_redirects=True) as browser:
        first = browser.get("/")
        assert (first.status_code, first.url.path) == (200, "/console/explore")
        page = browser.get("/console/explore", params={"user": "u3"})
        assert page.text.count('class="place"') == 10


def test_benchmarks_count_the_replicas_of_a_running_graph(head, config):
    running = RunningService(service.service_url(config), (psutil.Process(head.pid),), config)
    counts = GraphProcesses(running).count_running()
    assert {"Gateway", "Candidates", "Ranking", "Reranking"} <= {name for name, count in counts.items() if count}


def test_ray_exports_the_series_of_the_dashboards(head, config):
    httpx.get(f"{service.service_url(config)}/v1/users/u3/recommendations", timeout=30).raise_for_status()
    (node,) = json.loads((cluster.ray_folder(config) / "prom_metrics_service_discovery.json").read_text())[:1]
    wanted, until = {series for metric in RAY_METRICS for series in metric.series}, time.monotonic() + 60
    while True:
        text = "".join(httpx.get(f"http://{target}/metrics", timeout=10).text for target in node["targets"])
        missing = wanted - {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines()}
        if not missing or time.monotonic() > until:
            break
        time.sleep(1)
    assert missing == set()


def test_stock_commands_work_with_what_env_exports(head, config):
    script = f'eval "$({COMMANDS}/handsell env {config.source})" && ray status && ray job list && serve status'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=120, env={**environment, "PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Active:" in done.stdout and "status: RUNNING" in done.stdout and "HEALTHY" in done.stdout
    addresses = {name: value for name, value in head.access.items() if not name.startswith("RAY_AUTH")}
    refused = subprocess.run(
        [f"{COMMANDS}/serve", "status"], capture_output=True, text=True, timeout=60, env={**environment, **addresses}
    )
    assert refused.returncode != 0 and "uthenticat" in refused.stdout + refused.stderr


def test_a_trace_leads_from_the_caller_through_every_hop(head, config, receiver):
    given = {"traceparent": f"00-{TRACE}-{'7' * 16}-01"}
    answer = httpx.get(f"{service.service_url(config)}/v1/users/u4/recommendations", headers=given, timeout=30)
    spans = {span.name: span for span in receiver.wait_for(11, TRACE)}
    request = spans["GET /v1/users/{user_id}/recommendations"]
    assert request.parent_id == "7" * 16 and request.service == "handsell-gateway"
    for stage, operation in (("candidates", "candidates"), ("ranking", "rank"), ("reranking", "rerank")):
        call, work = spans[stage], spans[f"{stage.capitalize()}.{operation}"]
        assert call.parent_id == request.span_id and work.parent_id == call.span_id
        assert work.service == f"handsell-{stage}" and call.start_ns <= work.start_ns <= work.end_ns <= call.end_ns
    append, commit = spans["append slates"], spans["EventLog.call_group"]
    assert append.parent_id == request.span_id and commit.parent_id == append.span_id
    assert commit.service == "handsell-eventlog"
    name = answer.json()["recommendation_id"]
    assert {span.attributes["handsell.recommendation_id"] for span in spans.values()} == {name}
    assert receiver.headers[0]["x-token"] == "otlp-secret-93fa"


def test_lines_of_all_processes_have_one_format_and_are_joined_by_trace(head, config):
    given = {"traceparent": f"00-{'6' * 32}-{'7' * 16}-00", "Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=service.service_url(config), headers=given, timeout=30) as client:
        made = [client.post("/v1/recommendations", json={"user_id": user_id}).json() for user_id in PEOPLE]
        events = [{"type": "like", "user_id": user_id, "item_id": "i7"} for user_id in PEOPLE]
        assert client.post("/v1/events", json={"events": events}).status_code == 202
        assert client.get(f"/v1/users/{PEOPLE[0]}/recommendations").status_code == 200
        assert client.get("/v1/recommendations", params={"user_id": PEOPLE[1], "count": "none"}).status_code == 422
    until = time.monotonic() + 10  # the line of a request is written after its answer
    while len(lines := [one for one in read_lines(config) if one.get("trace_id") == "6" * 32]) < 5:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    assert [line["status"] for line in lines] == [200, 200, 202, 200, 422]
    assert [line["recommendation_id"] for line in lines[:2]] == [each["recommendation_id"] for each in made]


@pytest.mark.parametrize("text", [*SECRETS.values(), API_KEY.rpartition("_")[2], *PEOPLE])
def test_no_log_has_a_secret_or_an_id(head, config, text):
    """Ids are in the event store and in the vectors that `handsell skew` reads, which `handsell erase` covers."""
    data = (config.state / "events", config.state / "logs")
    holders = [path for path in find_holders(config, text) if not any(path.is_relative_to(place) for place in data)]
    assert holders == []
