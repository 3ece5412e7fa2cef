"""Latency and processor time of a call from a gateway to a stage, through Serve's handle and over a socket, in turns.

    python -m benchmarks stage_calls
    python -m benchmarks stage_calls --rounds 20 --calls 200

One local cluster serves a caller and a stage that returns its candidates. The caller makes one call after another, in
turns of `--calls` calls each way. Processor time is that of both processes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from benchmarks.report import measure_cpu_speed, write_report
from benchmarks.serving.small_cluster import serve_applications
from handsell.core.batches import Candidates
from handsell.core.ray_token import find_token
from handsell.serving.graph.remote import call
from handsell.serving.sockets.connection import derive_key
from handsell.serving.sockets.serve_router import ServeRouter
from handsell.serving.sockets.stage_caller import StageCaller
from handsell.serving.sockets.stage_listener import open_listener

SOURCES = ("als", "two_tower", "item_knn", "user_knn", "content", "popularity")
WAYS = ("serve", "socket")
WARMUP_ROUNDS = 3


def make_candidates(rows: int, k: int = 1_000) -> Candidates:
    """Build candidates of the size that the funnel's first stage returns."""
    rng = np.random.default_rng(0)
    scores = rng.random((rows, k, len(SOURCES)), np.float32)
    item = rng.integers(0, 8_000, (rows, k), np.int32)
    return Candidates(item, scores[:, :, 0], scores, scores.copy(), scores[:, :, 1], SOURCES)


class Stage:
    """Returns its candidates, and says what processor time this process has used."""

    async def call(self, candidates: Candidates) -> tuple[Candidates, float]:
        return candidates, time.process_time()

    async def record_replica_metadata(self) -> dict[str, str]:
        self._listener, announced = await open_listener(self.call, 8)
        return announced


class Caller:
    """Calls the stage a number of times, one after another."""

    def __init__(self, stage: DeploymentHandle):
        self._stage = stage
        self._socket = StageCaller(ServeRouter(stage), derive_key(find_token() or ""))

    async def __call__(self, request: Request) -> dict[str, Any]:
        sent, took = make_candidates(int(request.query_params.get("rows", 1))), []
        ask = self._ask_socket if request.query_params.get("way") == "socket" else self._ask_serve
        (_, stage), here = await ask(sent), time.process_time()
        for _ in range(int(request.query_params["calls"])):
            begun = time.perf_counter()
            _, stage_now = await ask(sent)
            took.append((time.perf_counter() - begun) * 1e3)
        return {"ms": took, "cpu_ms": (time.process_time() - here + stage_now - stage) * 1e3 / len(took)}

    async def _ask_serve(self, sent: Candidates) -> tuple[Candidates, float]:
        return await call(self._stage, "call", sent)

    async def _ask_socket(self, sent: Candidates) -> tuple[Candidates, float]:
        """Raises NoSocket where the call would go through Serve, so that no figure is of the other way."""
        return await self._socket.call(sent)


def build(arguments: dict[str, str]) -> serve.Application:
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0.1})
    return deployment(Caller).bind(deployment(Stage).bind())


def measure(rounds: int, calls: int, rows: int) -> dict[str, list[dict[str, Any]]]:
    """Start the cluster, call both ways in turns, and stop it; returns the rounds of each way."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with serve_applications({"calls": "benchmarks.serving.stage_calls:build"}, {}) as (url,):
        for turn in range(WARMUP_ROUNDS + rounds):
            for way in WAYS if turn % 2 else WAYS[::-1]:
                asked: dict[str, str | int] = {"calls": calls, "way": way, "rows": rows}
                answer = httpx.get(url, params=asked, timeout=120, trust_env=False).raise_for_status()
                if turn >= WARMUP_ROUNDS:
                    found[way].append(answer.json())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks stage_calls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=100, help="of each way in each round")
    parser.add_argument("--rows", type=int, default=1, help="requests in a call")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    found = measure(options.rounds, options.calls, options.rows)
    rows = []
    for way, rounds in found.items():
        calls = [ms for one in rounds for ms in one["ms"]]
        rows.append({
            "way": way, "p50 ms": statistics.median(calls), "p95 ms": float(np.percentile(calls, 95)),
            "CPU ms": statistics.median(one["cpu_ms"] for one in rounds), "n": len(calls),
        })  # fmt: skip
    about = {
        "ratio of p50": round(rows[1]["p50 ms"] / rows[0]["p50 ms"], 3),
        "ratio of CPU": round(rows[1]["CPU ms"] / rows[0]["CPU ms"], 3),
        "rows": options.rows, "speed": round(measure_cpu_speed(), 1),
    }  # fmt: skip
    write_report("stage_calls", rows, about, options.json)


if __name__ == "__main__":
    main()
