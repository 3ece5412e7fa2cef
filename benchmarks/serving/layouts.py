"""The ways of laying out one live bundle that benchmarks/serving.py compares, each started and stopped as a whole."""

from __future__ import annotations

import contextlib
import os
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

START_S = 180.0
COUNTED = tuple(
    f"handsell_{name}_{part}" for name in ("batch_size", "stage_seconds") for part in ("sum", "count")
)  # series of the gateway's metrics
MARKS = "HANDSELL_MARKS"  # environment: where hop_marks.py writes
COMPUTE = ("Gateway", "Candidates", "Ranking", "Reranking")


@dataclass(frozen=True)
class Layout:
    """`topology` None is one uvicorn process without Ray; `bare` takes Serve's own settings for every deployment
    and lets any number of requests in; `empty` puts stages that do nothing in its place. `least` is by deployment how
    many replicas there are at least; with `nodes` 2 a second raylet on this machine takes half of the gateways, and a
    proxy of the same port."""

    name: str
    topology: str | None
    ingress: str = "plain"
    micro_batch: int | None = None
    bare: bool = False
    least: Mapping[str, int] = field(default_factory=dict)
    nodes: int = 1
    empty: bool = False
    by_load: bool = False
    marks: str = ""


LAYOUTS = (
    Layout("empty stages, haproxy", "graph", "haproxy", empty=True),
    Layout("uvicorn, plain calls", None, micro_batch=1, bare=True),
    Layout("graph, Serve defaults", "graph", micro_batch=1, bare=True),
    Layout("graph", "graph"),
    Layout("graph, haproxy", "graph", "haproxy"),
    Layout("fused", "fused"),
    Layout("fused, haproxy", "fused", "haproxy"),
)


@dataclass(frozen=True)
class Running:
    """A service that answers, and the processes that answer for it: below one root for each node."""

    url: str
    roots: tuple[psutil.Process, ...]
    config: Config

    def family(self) -> list[psutil.Process]:
        return family_of(self.roots)

    def cpu_s(self) -> float:
        """CPU seconds so far of all its processes."""
        total = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def counts(self) -> dict[str, float]:
        """Sums and counts so far of the gateway that answers: of micro-batches, and of seconds by stage."""
        found = {}
        for line in httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith(COUNTED):
                found[name] = float(value)
        return found


@contextlib.contextmanager
def running(layout: Layout, config: Config, folder: Path) -> Iterator[Running]:
    """Start a layout on free ports, wait until it is ready, and end every process of it afterwards."""
    variant = variant_of(layout, config, folder)
    url = f"http://127.0.0.1:{variant.serving.port}"
    starts = _uvicorn if layout.topology is None else _serve
    with starts(layout, variant) as roots:
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                    break
            if time.monotonic() > until:
                raise TimeoutError(f"{layout.name} was not ready within {START_S:.0f} s")
            time.sleep(0.5)
        yield Running(url, roots, variant)


def variant_of(layout: Layout, config: Config, folder: Path) -> Config:
    """The config with this layout's settings and free ports, as a file of its own over the same state."""
    os.environ["HANDSELL_HOME"] = str(config.state.parent)
    raw = tomllib.loads(config.source.read_text())
    serving = raw.setdefault("serving", {})
    serving |= {"host": "127.0.0.1", "port": free_port(), "ingress": layout.ingress, "feature_log_share": 0.0}
    if layout.micro_batch is not None:
        serving["micro_batch"] = layout.micro_batch
    if layout.bare:
        serving["in_flight"] = 1_000
    raw.setdefault("jobs", {}).update({"gcs_port": free_port(), "dashboard_port": free_port()})
    path = folder / f"{layout.name.replace(' ', '_').replace(',', '')}.toml"
    path.write_text(tomli_w.dumps(raw))
    return load_config(path)


@contextlib.contextmanager
def _uvicorn(layout: Layout, config: Config) -> Iterator[tuple[psutil.Process, ...]]:
    command = [sys.executable, "-m", "benchmarks.serving.uvicorn_server", str(config.source)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield (psutil.Process(process.pid),)
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _serve(layout: Layout, config: Config) -> Iterator[tuple[psutil.Process, ...]]:
    if cluster.running(config) is not None:
        raise SystemExit(f"a cluster of {config.name} is running: `make down` first")
    head = cluster.start(config)
    others = [_node(config, head) for _ in range(layout.nodes - 1)]
    try:
        if layout.bare or layout.least or layout.nodes > 1 or layout.empty or layout.by_load or layout.marks:
            document = yaml.safe_load(service.render(config, layout.topology or "graph").read_text())
            _change(document, layout)
            _deploy(document, config, head)
        else:
            service.deploy(config, head, layout.topology or "graph")
        yield (psutil.Process(head.pid), *others)
    finally:
        _end(family_of(others))
        cluster.stop(config)


def _node(config: Config, head: cluster.RayHead) -> psutil.Process:
    """One more raylet: a CPU for the gateway that goes there."""
    command = [sys.executable, "-m", "benchmarks.serving.ray_node", head.gcs]
    with config.source.with_suffix(".node.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={
                **os.environ, **cluster.BASE_ENVIRONMENT, **cluster.INGRESS[config.serving.ingress],
                **token_environment(Path(head.token)),
            },
        )  # fmt: skip
    return psutil.Process(process.pid)


def family_of(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The roots that live, and all below them."""
    found = []
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [root, *root.children(recursive=True)]
    return found


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=10)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _change(document: dict, layout: Layout) -> None:
    """With `bare`, the application as it would be without a word about its deployments."""
    if layout.nodes > 1:
        document["proxy_location"] = "EveryNode"
    application = document["applications"][0]
    if layout.empty or layout.marks:
        application["runtime_env"]["env_vars"]["PYTHONPATH"] = str(Path(__file__).parents[2])
    if layout.marks:
        application["runtime_env"]["env_vars"][MARKS] = layout.marks
        application["import_path"] = "benchmarks.serving.call_trace:build"
    if layout.empty:
        application["import_path"] = "benchmarks.serving.empty_stages:build"
        application["deployments"] = [one for one in application["deployments"] if one["name"] in COMPUTE]
    for deployment in application["deployments"]:
        name = deployment["name"]
        if layout.by_load:
            deployment.get("autoscaling_config", {}).pop("policy", None)
        if layout.bare:
            deployment.clear()
            deployment |= {"name": name, "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.2}}
            if name in COMPUTE:
                deployment |= {"max_ongoing_requests": 5, "max_queued_requests": -1}
        elif name in layout.least:
            deployment["autoscaling_config"]["min_replicas"] = layout.least[name]
            if layout.nodes > 1:
                deployment["max_replicas_per_node"] = 1


def _deploy(document: dict, config: Config, head: cluster.RayHead) -> None:
    path = config.source.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(document))
    service.submit(path, head)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
