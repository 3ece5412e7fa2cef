"""What the token costs a call between deployments: the same application with and without it, in turns.

    python -m benchmarks token_cost
    python -m benchmarks token_cost --rounds 20 --calls 200

One local cluster serves two applications of a caller and a stage that hands on 1000 ids and scores. In the processes of
one of them Serve's gRPC servers and channels are made as they are without a token. The caller times each call, one at
a time; the applications take turns of `--calls` calls. Ray's own servers ask for the token either way: they are not on
the path of these calls.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import yaml
from ray import serve
from ray._private.authentication import authentication_utils
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from benchmarks.report import report, speed
from benchmarks.serving.layouts import free_port
from handsell.config import Config, load_config
from handsell.local import cluster, service
from handsell.serving.graph.remote import call

K = 1_000
WITHOUT = "HANDSELL_WITHOUT_TOKEN"  # environment of the one application's processes
MODES = ("with token", "without")
WARM, START_S = 3, 90.0

if os.environ.get(WITHOUT):  # before the replica makes its server: Serve imports this module first
    authentication_utils.is_token_auth_enabled = lambda: False


class Stage:
    """Hands on what it was given."""

    async def hand_on(self, item: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return item, score


class Caller:
    """Calls the stage so many times, one after another, and answers with the ms of each."""

    def __init__(self, stage: DeploymentHandle):
        self._stage = stage

    async def __call__(self, request: Request) -> dict[str, Any]:
        item, score, took = np.arange(K, dtype=np.int32), np.ones(K, np.float32), []
        for _ in range(int(request.query_params["calls"])):
            begun = time.perf_counter()
            await call(self._stage, "hand_on", item, score)
            took.append((time.perf_counter() - begun) * 1e3)
        return {"token": authentication_utils.is_token_auth_enabled(), "ms": took}


def build(arguments: dict[str, str]) -> serve.Application:
    """The classes are not decorated, so that replicas find them by name and import this module."""
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0.1})
    return deployment(Caller).bind(deployment(Stage).bind())


def serve_file(config: Config, folder: Path) -> Path:
    """Both applications as a Serve file."""
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    applications = [
        {
            "name": name, "route_prefix": f"/{name}", "import_path": "benchmarks.serving.token_cost:build",
            "runtime_env": {"env_vars": paths | variables},
        }
        for name, variables in (("with", {}), ("without", {WITHOUT: "1"}))
    ]  # fmt: skip
    http = {"host": config.serving.host, "port": config.serving.port}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump({"http_options": http, "applications": applications}))
    return path


def ask(url: str, calls: int, token: bool) -> list[float]:
    """The ms of each of so many calls; fails where the application is not the one that it should be."""
    answer = httpx.get(url, params={"calls": calls}, timeout=120).raise_for_status().json()
    if answer["token"] != token:
        raise SystemExit(f"{url} was expected to run {'with' if token else 'without'} the token")
    return answer["ms"]


def wait_for(urls: list[str]) -> None:
    until = time.monotonic() + START_S
    for url in urls:
        while True:
            try:
                if httpx.get(url, params={"calls": 1}, timeout=30).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() > until:
                raise TimeoutError(f"{url} was not ready within {START_S:.0f} s")
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks token_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=100, help="of each application in each round")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="handsell-token-cost-") as name:
        os.environ["HANDSELL_HOME"] = name
        source = Path(name) / "hops.toml"
        source.write_text(
            f'name = "hops"\n[serving]\nport = {free_port()}\n'
            f"[jobs]\ngcs_port = {free_port()}\ndashboard_port = {free_port()}\nnum_cpus = 2\nobject_store_mib = 100\n"
        )
        config = load_config(source)
        head = cluster.start(config)
        try:
            service.submit(serve_file(config, Path(name)), head)
            urls = [f"{service.address(config)}/{application}/" for application in ("with", "without")]
            wait_for(urls)
            found: list[list[list[float]]] = [[], []]
            for turn in range(WARM + asked.rounds):
                order = (0, 1) if turn % 2 else (1, 0)
                for which in order:
                    took = ask(urls[which], asked.calls, token=which == 0)
                    if turn >= WARM:
                        found[which].append(took)
        finally:
            cluster.stop(config)
            shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)
    middles = [[statistics.median(took) for took in rounds] for rounds in found]
    rows = [
        {
            "call": mode, "p50 ms": statistics.median(every), "p95 ms": float(np.percentile(every, 95)),
            "fastest round's p50": min(each), "n": len(every),
        }
        for mode, each, every in zip(MODES, middles, ([ms for took in r for ms in took] for r in found), strict=True)
    ]  # fmt: skip
    differences = [ours - bare for ours, bare in zip(*middles, strict=True)]
    about = {
        "ratio of p50": round(rows[0]["p50 ms"] / rows[1]["p50 ms"], 3),
        "difference of a round's p50, ms: median": round(statistics.median(differences), 4),
        "quartiles": [round(float(q), 4) for q in np.percentile(differences, [25, 75])],
        "rounds": asked.rounds, "speed": round(speed(), 1),
    }  # fmt: skip
    report("token_cost", rows, about, asked.json)


if __name__ == "__main__":
    main()
