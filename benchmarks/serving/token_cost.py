"""Latency of a call between deployments with and without Ray's token, measured in turns.

    python -m benchmarks token_cost
    python -m benchmarks token_cost --rounds 20 --calls 200

One local cluster serves two applications, each with a caller and a stage that returns its 1000 ids and scores. In the
processes of one application, Serve creates its gRPC servers and channels without the token. The caller times one call
at a time; the applications take turns of `--calls` calls. Ray's own servers check the token in both cases: these calls
do not go through them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from ray import serve
from ray._private.authentication import authentication_utils
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from benchmarks.report import measure_cpu_speed, write_report
from benchmarks.serving.small_cluster import serve_applications
from handsell.serving.graph.remote import call

K = 1_000
WITHOUT = "HANDSELL_WITHOUT_TOKEN"  # environment variable of the processes of one application
MODES = ("with token", "without")
WARMUP_ROUNDS = 3

if os.environ.get(WITHOUT):  # Serve imports this module before the replica creates its server
    authentication_utils.is_token_auth_enabled = lambda: False


class Stage:
    """Return the arguments."""

    async def echo(self, item: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return item, score


class Caller:
    """Call the stage a number of times, one after another, and return the ms of each call."""

    def __init__(self, stage: DeploymentHandle):
        self._stage = stage

    async def __call__(self, request: Request) -> dict[str, Any]:
        item, score, took = np.arange(K, dtype=np.int32), np.ones(K, np.float32), []
        for _ in range(int(request.query_params["calls"])):
            begun = time.perf_counter()
            await call(self._stage, "echo", item, score)
            took.append((time.perf_counter() - begun) * 1e3)
        return {"token": authentication_utils.is_token_auth_enabled(), "ms": took}


def build(arguments: dict[str, str]) -> serve.Application:
    """Build an application; its classes are not decorated, so that replicas import them from this module by name."""
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0.1})
    return deployment(Caller).bind(deployment(Stage).bind())


def measure_calls(url: str, calls: int, token: bool) -> list[float]:
    """Return the ms of each call; exits if the application does not run as expected."""
    answer = httpx.get(url, params={"calls": calls}, timeout=120, trust_env=False).raise_for_status().json()
    if answer["token"] != token:
        raise SystemExit(f"{url}: expected to run {'with' if token else 'without'} the token, got the opposite")
    return answer["ms"]


def measure(rounds: int, calls: int) -> list[list[list[float]]]:
    """Start the cluster, run both applications in turns, and stop it; ms by mode, round and call."""
    path = "benchmarks.serving.token_cost:build"
    found: list[list[list[float]]] = [[], []]
    with serve_applications({"with": path, "without": path}, {"without": {WITHOUT: "1"}}) as urls:
        for turn in range(WARMUP_ROUNDS + rounds):
            for mode in (0, 1) if turn % 2 else (1, 0):
                took = measure_calls(urls[mode], calls, token=mode == 0)
                if turn >= WARMUP_ROUNDS:
                    found[mode].append(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks token_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=100, help="of each application in each round")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    found = measure(options.rounds, options.calls)
    medians = [[statistics.median(took) for took in rounds] for rounds in found]
    rows: list[dict[str, Any]] = [
        {
            "call": mode, "p50 ms": statistics.median(calls), "p95 ms": float(np.percentile(calls, 95)),
            "fastest round's p50": min(by_round), "n": len(calls),
        }
        for mode, by_round, calls in zip(
            MODES, medians, ([ms for took in rounds for ms in took] for rounds in found), strict=True
        )
    ]  # fmt: skip
    differences = [with_token - without for with_token, without in zip(*medians, strict=True)]
    about = {
        "ratio of p50": round(rows[0]["p50 ms"] / rows[1]["p50 ms"], 3),
        "difference of a round's p50, ms: median": round(statistics.median(differences), 4),
        "quartiles": [round(float(q), 4) for q in np.percentile(differences, [25, 75])],
        "rounds": options.rounds, "speed": round(measure_cpu_speed(), 1),
    }  # fmt: skip
    write_report("token_cost", rows, about, options.json)


if __name__ == "__main__":
    main()
