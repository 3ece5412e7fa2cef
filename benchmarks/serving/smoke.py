"""Latency and rate of a running service, and the floor of the same machine in the same run.

    make up && python -m benchmarks serving_smoke
    python -m benchmarks serving_smoke --config deployments/configs/world.toml --url http://127.0.0.1:8000

Callers are closed loops (each asks again when it has its answer) in processes apart from this one's floor.
The floor is the live bundle's funnel as plain calls in one thread: user row from Feast, request, funnel,
one user at a time, no HTTP and no Ray. Callers share the machine's cores with the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest: one thread is what is measured

import httpx
import numpy as np

from benchmarks.report import report
from handsell.config import Config, load_config
from handsell.core.paths import Layout

WARMUP = 50
STAGES = ("features", "candidates", "ranking", "reranking")


def users_of(config: Config, count: int) -> list[str]:
    """Users of the catalog, spread evenly, in a shuffled order of fixed seed."""
    from handsell.catalog.vocabulary import Vocabulary

    users = Vocabulary.load(Layout(config.state).catalog / "users")
    numbers = np.unique(np.linspace(0, len(users) - 1, count).astype(np.int64))
    return users.ids(np.random.default_rng(1).permutation(numbers))


async def call(base: str, users: list[str], callers: int, seconds: float) -> dict:
    """`callers` closed loops for a while; latencies in ms of answers with status 200."""
    latencies: list[float] = []
    failed = degraded = 0

    async def loop(client: httpx.AsyncClient, place: int, until: float) -> None:
        nonlocal failed, degraded
        while time.perf_counter() < until:
            begun = time.perf_counter()
            try:
                answer = await client.get(f"{base}/v1/users/{users[place % len(users)]}/recommendations")
            except httpx.HTTPError:
                failed += 1
                continue
            if answer.status_code != 200:
                failed += 1
                continue
            latencies.append((time.perf_counter() - begun) * 1e3)
            degraded += bool(answer.json()["degraded"])
            place += callers

    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(loop(client, i, begun + seconds) for i in range(callers)))
        took = time.perf_counter() - begun
    return {"callers": callers, "per_second": len(latencies) / took, "failed": failed, "degraded": degraded} | spread(
        latencies
    )


def spread(milliseconds: list[float]) -> dict:
    if not milliseconds:
        return {"n": 0, "p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
    return {"n": len(milliseconds), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def floor(config: Config, users: list[str], seconds: float) -> dict:
    """The same questions as plain calls, one after another; `stages` has the mean ms of each, after warming up."""
    from handsell.bundles.stages import load_stages
    from handsell.bundles.store import BundleStore
    from handsell.core.funnel import run_local
    from handsell.features.request_builder import requests_from_rows
    from handsell.features.store import open_store

    bundles = BundleStore(Layout(config.state).bundles)
    live = bundles.live()
    if live is None:
        sys.exit(f"no bundle of {config.name} is live: `make up` trains one")
    stages, store = load_stages(bundles.local_path(live), config), open_store(config)
    count, home = config.surfaces["home"].count, config.surface_names.index("home")
    now, latencies = np.array([stages.snapshot.as_of]), []
    funnel, took_s = stages.funnel, dict.fromkeys(STAGES, 0.0)

    def ask(user: str) -> None:
        moments = [time.perf_counter()]
        rows = store.online_users([user])
        requests = requests_from_rows(rows, stages.snapshot, config, now, np.array([home], np.int8))
        moments.append(time.perf_counter())
        found = run_local(funnel.candidates.candidates(requests, funnel.k))
        moments.append(time.perf_counter())
        ranked = run_local(funnel.ranking.rank(requests, found, max(funnel.ranked, count)))
        moments.append(time.perf_counter())
        run_local(funnel.reranking.rerank(requests, ranked, count))
        moments.append(time.perf_counter())
        for stage, begun, ended in zip(STAGES, moments, moments[1:], strict=False):
            took_s[stage] += ended - begun

    for user in users[:WARMUP]:
        ask(user)
    took_s.update(dict.fromkeys(STAGES, 0.0))
    begun, place = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        asked = time.perf_counter()
        ask(users[place % len(users)])
        latencies.append((time.perf_counter() - asked) * 1e3)
        place += 1
    took = time.perf_counter() - begun
    each = {stage: 1e3 * total / len(latencies) for stage, total in took_s.items()}
    return {"bundle": live, "per_second": len(latencies) / took, "stages": each} | spread(latencies)


def in_own_process(base: str, users: list[str], callers: int, seconds: float) -> dict:
    """Callers must not share an interpreter with what they are compared to."""
    asked = json.dumps({"base": base, "users": users, "callers": callers, "seconds": seconds})
    command = [sys.executable, "-m", "benchmarks.serving.smoke", "--calls-from-stdin"]
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def floors_at_once(config: Config, processes: int, seconds: float, users: int) -> dict:
    """What so many processes of the floor do beside each other: more than that no layout can do on these cores."""
    command = [
        sys.executable, "-m", "benchmarks.serving.smoke", "--floor-alone", "--config", str(config.source),
        "--seconds", str(seconds), "--users", str(users),
    ]  # fmt: skip
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [json.loads(process.communicate()[0]) for process in running]
    middle = {key: sum(one[key] for one in found) / processes for key in ("p50", "p95", "p99")}
    return middle | {"per_second": sum(one["per_second"] for one in found)}


def as_rows(service: list[dict], lowest: dict) -> list[dict]:
    """The floor first, then each number of callers, with the same columns."""
    named = [("floor, no HTTP", lowest), *((str(row["callers"]), row) for row in service)]
    return [
        {
            "callers": name,
            "answers": row["n"],
            "per second": row["per_second"],
            **{f"{p} ms": row[p] for p in ("p50", "p95", "p99")},
            "failed": row.get("failed"),
            "degraded": row.get("degraded"),
        }
        for name, row in named
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving_smoke", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--url", help="of the running service; the config's address where not given")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of callers, and for the floor")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--calls-from-stdin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--floor-alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.calls_from_stdin:
        print(json.dumps(asyncio.run(call(**json.load(sys.stdin)))))
        return
    config = load_config(asked.config)
    if asked.floor_alone:
        print(json.dumps(floor(config, users_of(config, asked.users), asked.seconds)))
        return
    base = (asked.url or f"http://{config.serving.host}:{config.serving.port}").rstrip("/")
    try:
        httpx.get(f"{base}/readyz", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        sys.exit(f"a ready service is expected at {base}, it answered: {error}. Start it with `make up`")
    users = users_of(config, asked.users)
    lowest = floor(config, users, asked.seconds)  # while nobody calls the service
    in_own_process(base, users, 4, 3.0)  # warm up
    rows = [in_own_process(base, users, callers, asked.seconds) for callers in asked.callers]
    about = {"url": base, "bundle": lowest["bundle"], "seconds": asked.seconds, "users": len(users)}
    report("serving_smoke", as_rows(rows, lowest), about, asked.json)
    sys.exit(any(row["failed"] or not row["n"] for row in rows))


if __name__ == "__main__":
    main()
