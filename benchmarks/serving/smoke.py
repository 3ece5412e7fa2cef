"""Latency and throughput of a running service, and of the same funnel without HTTP and Ray in the same run.

    make up && python -m benchmarks serving_smoke
    python -m benchmarks serving_smoke --config deployments/configs/world.toml --url http://127.0.0.1:8000

Clients are closed loops (each sends its next request when it has a response), in a separate process. The floor is the
live bundle's funnel as plain calls in one thread: user row from Feast, request, funnel, one user at a time. Clients
share the machine's cores with the service.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: the floor uses one thread

import httpx
import numpy as np

from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.paths import Layout

WARMUP = 50
STAGES = ("features", "candidates", "ranking", "reranking")


def sample_users(config: Config, count: int) -> list[str]:
    """Users spread evenly over the catalog, shuffled with a fixed seed."""
    from handsell.catalog.vocabulary import Vocabulary

    users = Vocabulary.load(Layout(config.state).catalog / "users")
    numbers = np.unique(np.linspace(0, len(users) - 1, count).astype(np.int64))
    return users.ids(np.random.default_rng(1).permutation(numbers))


async def run_clients(base: str, users: list[str], clients: int, seconds: float) -> dict:
    """Run closed loops; latencies are in ms, of 200 responses only."""
    latencies: list[float] = []
    failed = degraded = 0

    async def loop(client: httpx.AsyncClient, place: int, until: float) -> None:
        nonlocal failed, degraded
        while time.perf_counter() < until:
            begun = time.perf_counter()
            try:
                response = await client.get(f"{base}/v1/users/{users[place % len(users)]}/recommendations")
            except httpx.HTTPError:
                failed += 1
                continue
            if response.status_code != 200:
                failed += 1
                continue
            latencies.append((time.perf_counter() - begun) * 1e3)
            degraded += bool(response.json()["degraded"])
            place += clients

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client:
        begun = time.perf_counter()
        await asyncio.gather(*(loop(client, i, begun + seconds) for i in range(clients)))
        took = time.perf_counter() - begun
    counts = {"clients": clients, "per_second": len(latencies) / took, "failed": failed, "degraded": degraded}
    return counts | summarize(latencies)


def summarize(milliseconds: list[float]) -> dict:
    """Number and percentiles of latencies."""
    if not milliseconds:
        return {"n": 0, "p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
    return {"n": len(milliseconds), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def measure_floor(config: Config, users: list[str], seconds: float) -> dict:
    """Run the same requests as plain calls, one after another; `stages` has the mean ms of each, after a warm-up."""
    from handsell.bundles.opening import open_bundles
    from handsell.bundles.stages import apply_choices, load_stages
    from handsell.core.funnel import run_local
    from handsell.features.request_builder import build_requests_from_rows
    from handsell.features.store import open_store

    bundles = open_bundles(config)
    live = bundles.live()
    if live is None:
        sys.exit(f"no bundle of {config.name} is live: run `make up` to train one")
    path = bundles.local_path(live)
    stages, store = load_stages(path, apply_choices(config, path)), open_store(config)
    count, home = config.surfaces["home"].count, config.surface_names.index("home")
    now, latencies = np.array([stages.snapshot.as_of]), []
    funnel, took_s = stages.funnel, dict.fromkeys(STAGES, 0.0)

    def recommend(user: str) -> None:
        times = [time.perf_counter()]
        rows = store.online_users([user])
        requests = build_requests_from_rows(rows, stages.snapshot, config, now, np.array([home], np.int8))
        times.append(time.perf_counter())
        found = run_local(funnel.candidates.candidates(requests, funnel.k))
        times.append(time.perf_counter())
        ranked = run_local(funnel.ranking.rank(requests, found, max(funnel.ranked, count)))
        times.append(time.perf_counter())
        run_local(funnel.reranking.rerank(requests, ranked, count))
        times.append(time.perf_counter())
        for stage, begun, ended in zip(STAGES, times, times[1:], strict=False):
            took_s[stage] += ended - begun

    for user in users[:WARMUP]:
        recommend(user)
    took_s.update(dict.fromkeys(STAGES, 0.0))
    begun, place = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        recommend(users[place % len(users)])
        latencies.append((time.perf_counter() - started) * 1e3)
        place += 1
    took = time.perf_counter() - begun
    stage_ms = {stage: 1e3 * total / len(latencies) for stage, total in took_s.items()}
    return {"bundle": live, "per_second": len(latencies) / took, "stages": stage_ms} | summarize(latencies)


def run_clients_in_subprocess(base: str, users: list[str], clients: int, seconds: float) -> dict:
    """Run the clients in another interpreter, so that they do not compete with the floor for this one."""
    arguments = json.dumps({"base": base, "users": users, "clients": clients, "seconds": seconds})
    command = [sys.executable, "-m", "benchmarks.serving.smoke", "--clients-from-stdin"]
    done = subprocess.run(command, input=arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure_parallel_floors(config: Config, processes: int, seconds: float, users: int) -> dict:
    """Run the floor in several processes in parallel: an upper bound for every layout on these cores."""
    command = [
        sys.executable, "-m", "benchmarks.serving.smoke", "--floor-alone", "--config", str(config.source),
        "--seconds", str(seconds), "--users", str(users),
    ]  # fmt: skip
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    found = [json.loads(process.communicate()[0]) for process in running]
    mean = {key: sum(one[key] for one in found) / processes for key in ("p50", "p95", "p99")}
    return mean | {"per_second": sum(one["per_second"] for one in found)}


def build_rows(service: list[dict], floor: dict) -> list[dict]:
    """One row for the floor, then one for each number of clients."""
    named = [("floor, no HTTP", floor), *((str(row["clients"]), row) for row in service)]
    return [
        {
            "clients": name,
            "responses": row["n"],
            "per second": row["per_second"],
            **{f"{p} ms": row[p] for p in ("p50", "p95", "p99")},
            "failed": row.get("failed"),
            "degraded": row.get("degraded"),
        }
        for name, row in named
    ]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks serving_smoke", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--url", help="address of the running service (default: from the config)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each number of clients, and for the floor")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--json", type=Path, help="output file")
    parser.add_argument("--clients-from-stdin", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--floor-alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    if options.clients_from_stdin:
        print(json.dumps(asyncio.run(run_clients(**json.load(sys.stdin)))))
        return
    config = load_config(options.config)
    if options.floor_alone:
        print(json.dumps(measure_floor(config, sample_users(config, options.users), options.seconds)))
        return
    base = (options.url or f"http://{config.serving.host}:{config.serving.port}").rstrip("/")
    try:
        httpx.get(f"{base}/readyz", timeout=10, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        sys.exit(f"expected a ready service at {base}, got: {error}. Start it with `make up`")
    users = sample_users(config, options.users)
    floor = measure_floor(config, users, options.seconds)  # while the service is idle
    run_clients_in_subprocess(base, users, 4, 3.0)  # warm up
    rows = [run_clients_in_subprocess(base, users, clients, options.seconds) for clients in options.clients]
    about = {"url": base, "bundle": floor["bundle"], "seconds": options.seconds, "users": len(users)}
    write_report("serving_smoke", build_rows(rows, floor), about, options.json)
    sys.exit(any(row["failed"] or not row["n"] for row in rows))


if __name__ == "__main__":
    main()
