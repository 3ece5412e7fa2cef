"""Serving layouts of one live bundle: start one on free ports, and stop all of its processes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import tomli_w
import yaml

from handsell.config import Config, load_config
from handsell.core.ray_token import token_environment
from handsell.local import cluster, service
from handsell.local.ingress import process as ingress

START_S = 180.0
COUNTERS = tuple(
    f"handsell_{name}_{part}" for name in ("batch_size", "stage_seconds") for part in ("sum", "count")
)  # prefixes of the gateway's metrics
REPLICA = re.compile(r'replica="[^"]*",?')  # a label of every series
TRACE_FOLDER = "HANDSELL_TRACE_FOLDER"  # environment variable that call_trace.py reads
GRAPH = ("Gateway", "Candidates", "Ranking", "Reranking")


@dataclass(frozen=True)
class ServingLayout:
    """One way to deploy the live bundle."""

    name: str
    topology: str | None  # None: one uvicorn process without Ray
    ingress: str = "plain"
    micro_batch: int | None = None
    serve_defaults: bool = False  # Ray Serve's own settings for every deployment, and no limit on concurrent requests
    min_replicas: Mapping[str, int] = field(default_factory=dict)  # by deployment
    second_home: str = ""  # state folder of the second raylet; empty: that of the first
    is_fixed: bool = False  # min_replicas are also the most
    nodes: int = 1  # 2: a second raylet on this machine, with half of the gateways and a proxy on the same port
    empty_stages: bool = False  # stages that do no work
    empty_application: bool = False  # a FastAPI application that does no work, in one uvicorn process
    by_load: bool = False  # scale by load alone, not by free cores too
    reuses: bool = False  # gives answers again; others compute every one
    trace_folder: str = ""  # where call_trace.py writes; empty: no trace


EMPTY = ServingLayout("empty FastAPI application", None, empty_application=True)
LAYOUTS = (
    EMPTY,
    ServingLayout("empty stages, haproxy", "graph", "haproxy", empty_stages=True),
    ServingLayout("uvicorn, plain calls", None, micro_batch=1, serve_defaults=True),
    ServingLayout("graph, Serve defaults", "graph", micro_batch=1, serve_defaults=True),
    ServingLayout("graph", "graph"),
    ServingLayout("graph, haproxy", "graph", "haproxy"),
    ServingLayout("fused", "fused"),
    ServingLayout("fused, haproxy", "fused", "haproxy"),
    ServingLayout("graph, haproxy, repeated", "graph", "haproxy", reuses=True),
    ServingLayout("fused, haproxy, repeated", "fused", "haproxy", reuses=True),
)


@dataclass(frozen=True)
class RunningService:
    """The address of a ready service and the root processes of its nodes."""

    url: str
    roots: tuple[psutil.Process, ...]
    config: Config

    def processes(self) -> list[psutil.Process]:
        return process_tree(self.roots)

    def cpu_s(self) -> float:
        """CPU seconds that all processes have used so far."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def read_counters(self) -> dict[str, float]:
        """Sums and counts of batch size and stage seconds, of the gateway replica that answers."""
        found = {}
        for line in httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text.splitlines():
            name, _, value = line.rpartition(" ")
            name = REPLICA.sub("", name).replace(",}", "}").replace("{}", "")
            if name.startswith(COUNTERS):
                found[name] = float(value)
        return found


@contextlib.contextmanager
def start_layout(layout: ServingLayout, config: Config, folder: Path) -> Iterator[RunningService]:
    """Start a layout on free ports, wait until it is ready, and end all of its processes afterwards."""
    variant = write_variant(layout, config, folder)
    url = f"http://127.0.0.1:{variant.serving.port}"
    start = _start_uvicorn if layout.topology is None else _start_serve
    with start(layout, variant) as roots:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200:
                    break
            if time.monotonic() > until:
                raise TimeoutError(f"{layout.name} was not ready within {START_S:.0f} s")
            time.sleep(0.5)
        yield RunningService(url, roots, variant)


def write_variant(layout: ServingLayout, config: Config, folder: Path) -> Config:
    """Write the config with the layout's settings and free ports to a new file that uses the same state."""
    os.environ["HANDSELL_HOME"] = str(config.state.parent)
    raw = tomllib.loads(config.source.read_text())
    serving = raw.setdefault("serving", {})
    serving |= {"host": "127.0.0.1", "port": free_port(), "ingress": layout.ingress, "feature_log_share": 0.0}
    if not layout.reuses:
        serving["reuse_bytes"] = 0
    if layout.micro_batch is not None:
        serving["micro_batch"] = layout.micro_batch
    if layout.serve_defaults:
        serving["in_flight"] = 1_000
    raw.setdefault("jobs", {}).update({"gcs_port": free_port(), "dashboard_port": free_port()})
    path = folder / f"{layout.name.replace(' ', '_').replace(',', '')}.toml"
    path.write_text(tomli_w.dumps(raw))
    return load_config(path)


@contextlib.contextmanager
def _start_uvicorn(layout: ServingLayout, config: Config) -> Iterator[tuple[psutil.Process, ...]]:
    module = "empty_application" if layout.empty_application else "uvicorn_server"
    argument = config.serving.port if layout.empty_application else config.source
    command = [sys.executable, "-m", f"benchmarks.serving.{module}", str(argument)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield (psutil.Process(process.pid),)
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _start_serve(layout: ServingLayout, config: Config) -> Iterator[tuple[psutil.Process, ...]]:
    if cluster.find_running(config) is not None:
        raise SystemExit(f"a cluster of {config.name} is running: run `make down` first")
    others: list[psutil.Process] = []
    changed = (
        layout.serve_defaults, layout.min_replicas, layout.nodes > 1, layout.empty_stages, layout.by_load,
        layout.trace_folder,
    )  # fmt: skip
    try:
        head = cluster.start(config)
        for _ in range(layout.nodes - 1):
            others.append(_start_node(config, head, layout.second_home))
        if any(changed):
            document = yaml.safe_load(service.write_serve_file(config, layout.topology or "graph").read_text())
            _change(document, layout)
            _deploy(document, config, head)
        else:
            service.deploy(config, head, layout.topology or "graph")
        yield (psutil.Process(head.pid), *others, *map(psutil.Process, ingress.list_pids(config)))
    finally:
        _end(process_tree(others))
        cluster.stop(config)


def _start_node(config: Config, head: cluster.RayHead, home: str = "") -> psutil.Process:
    """Start another raylet, with one CPU for a gateway.

    `home` is the folder of the state of its processes; empty: that of this process.
    """
    command = [sys.executable, "-m", "benchmarks.serving.ray_node", head.gcs]
    with config.source.with_suffix(".node.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={
                **os.environ, **cluster.BASE_ENVIRONMENT, **cluster.INGRESS[ingress.choose_ingress(config)],
                **token_environment(Path(head.token)), **({"HANDSELL_HOME": home} if home else {}),
            },
        )  # fmt: skip
    return psutil.Process(process.pid)


def process_tree(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The roots that still run and all of their descendants, each once."""
    found = []
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [root, *root.children(recursive=True)]
    return list(dict.fromkeys(found))


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _change(document: dict, layout: ServingLayout) -> None:
    """Apply the layout's settings to a Serve config document."""
    if layout.nodes > 1:
        document["proxy_location"] = "EveryNode"
    application = document["applications"][0]
    variables = application["runtime_env"]["env_vars"]
    if layout.empty_stages or layout.trace_folder:
        variables["PYTHONPATH"] = str(Path(__file__).parents[2])
    if layout.trace_folder:
        variables[TRACE_FOLDER] = layout.trace_folder
        application["import_path"] = "benchmarks.serving.call_trace:build"
    if layout.empty_stages:
        application["import_path"] = "benchmarks.serving.empty_stages:build"
        application["deployments"] = [one for one in application["deployments"] if one["name"] in GRAPH]
    for deployment in application["deployments"]:
        name = deployment["name"]
        if layout.by_load:
            deployment.get("autoscaling_config", {}).pop("policy", None)
        if layout.serve_defaults:
            deployment.clear()
            deployment |= {"name": name, "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.2}}
            if name in GRAPH:
                deployment |= {"max_ongoing_requests": 5, "max_queued_requests": -1}
        elif name in layout.min_replicas:
            deployment["autoscaling_config"]["min_replicas"] = layout.min_replicas[name]
            if layout.is_fixed:
                deployment["autoscaling_config"]["max_replicas"] = layout.min_replicas[name]
            if layout.nodes > 1:
                deployment["max_replicas_per_node"] = 1


def _deploy(document: dict, config: Config, head: cluster.RayHead) -> None:
    path = config.source.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(document))
    service.send_serve_file(path, head)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
