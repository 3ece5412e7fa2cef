"""Processor time of each layer of a request: HTTP, the service, reading the user, the stages; in one process.

    make up && make down && python -m benchmarks request_layers
    git worktree add ../before HEAD~5 && python -m benchmarks request_layers --before ../before

A gateway with its stages, its feature store and its event store answers one request after another without a server; no
answer is reused. The time is that of the process with all its threads; medians are over requests. With `--before`,
processes of both versions take turns, and each figure is the median of their medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.report import write_report

WARM = 100  # requests before the measurement
LAYERS = ("HTTP", "service", "reading the user", "batch", "stages", "whole request")


def watch(owner: Any, name: str, took: dict[str, float], layer: str) -> None:
    """Add the time of every call of a method or coroutine to a layer."""
    call = getattr(owner, name)

    async def wait(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return await call(*args, **options)
        finally:
            took[layer] += time.process_time() - began

    def run(*args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return call(*args, **options)
        finally:
            took[layer] += time.process_time() - began

    setattr(owner, name, wait if asyncio.iscoroutinefunction(call) else run)


def build_application(path: Path, took: dict[str, float]) -> Any:
    """Build the gateway of the live bundle, with its layers watched."""
    from handsell.core.paths import Layout
    from handsell.events.store.sqlite_writer import SqliteWriter
    from handsell.features.store import open_store
    from handsell.serving.graph.event_sink import LocalSink
    from handsell.serving.graph.loaded_bundle import load_bundle
    from handsell.serving.graph.loading import LIVE, open_bundle
    from handsell.serving.graph.service import Service
    from handsell.serving.graph.stage_loading import load_local_stages
    from handsell.serving.http.api import build_api
    from handsell.serving.telemetry.observability import Metrics

    opened, metrics = open_bundle(str(path), LIVE), Metrics()
    if hasattr(opened.config.surfaces["home"], "reuse_seconds"):
        surfaces = {n: s.model_copy(update={"reuse_seconds": 0}) for n, s in opened.config.surfaces.items()}
        config = opened.config.model_copy(update={"surfaces": surfaces})
        config._source = opened.config.source
        opened = replace(opened, config=config)
    bundle = load_bundle(opened, load_local_stages(opened), open_store(opened.config), metrics)
    service = Service(bundle, LocalSink(SqliteWriter(Layout(opened.config.state).event_log)), metrics)
    watch(service, "recommend", took, "in service")
    watch(bundle, "recommend", took, "in bundle")
    for name in ("read", "complete") if hasattr(bundle._users, "complete") else ("build_requests",):
        watch(bundle._users, name, took, "reading the user")
    watch(bundle.stages, "call", took, "stages")
    return build_api(service)


async def ask(app: Callable[..., Any], user: str) -> None:
    """Send one request as uvicorn passes it on; raises SystemExit unless the answer is 200."""
    path, status = f"/v1/users/{user}/recommendations", []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        status.append(message.get("status"))

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path, "root_path": "",
        "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"127.0.0.1")], "state": {},
        "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 40_000),
    }  # fmt: skip
    await app(scope, receive, send)
    if status[0] != 200:
        sys.exit(f"expected 200 for user {user}, got {status[0]}")


async def measure(path: Path, requests: int) -> dict[str, float]:
    """Return the median µs of each layer."""
    from benchmarks.serving.smoke import sample_users
    from handsell.config import load_config

    took: dict[str, float] = defaultdict(float)
    app, users = build_application(path, took), sample_users(load_config(path), requests)
    found = []
    for place in range(WARM + requests):
        took.clear()
        began = time.process_time()
        await ask(app, users[place % len(users)])
        whole = time.process_time() - began
        found.append(split(took, whole))
    return {layer: 1e6 * statistics.median(one[layer] for one in found[WARM:]) for layer in LAYERS}


def split(took: dict[str, float], whole: float) -> dict[str, float]:
    """Take from each layer the time of those below it."""
    inner = took["reading the user"] + took["stages"]
    return {
        "HTTP": whole - took["in service"], "service": took["in service"] - took["in bundle"],
        "reading the user": took["reading the user"], "batch": took["in bundle"] - inner, "stages": took["stages"],
        "whole request": whole,
    }  # fmt: skip


def run_version(folder: Path, config: Path, requests: int) -> dict[str, float]:
    """Measure the version of a checkout in a process of its own."""
    here = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--measure",
        "--config",
        str(config),
        "--requests",
        str(requests),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder.resolve() / "src", here)))}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks request_layers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--before", type=Path, help="a checkout of another version")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="output file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(measure(options.config, options.requests))), flush=True)
        os._exit(0)  # without waiting for the threads of the stores
    versions = {"before": options.before} if options.before else {}
    versions["now"] = Path(__file__).parents[2]
    rounds = [
        {n: run_version(f, options.config, options.requests) for n, f in versions.items()}
        for _ in range(options.rounds)
    ]
    median = {n: {layer: statistics.median(one[n][layer] for one in rounds) for layer in LAYERS} for n in versions}
    rows = [
        {"layer": layer, **{f"{n}, µs": median[n][layer] for n in versions}}
        | ({"now / before": median["now"][layer] / median["before"][layer]} if options.before else {})
        for layer in LAYERS
    ]
    write_report("request_layers", rows, {"requests": options.requests, "rounds": options.rounds}, options.json)


if __name__ == "__main__":
    main()
