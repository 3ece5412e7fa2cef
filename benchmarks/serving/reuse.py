"""Processor time of reused answers beside computed ones: `python -m benchmarks reuse`.

Two gateways with their stages in this process, on the bundle and the stores of a deployment, one of which keeps no
answers. They are called as ASGI applications, in turns; the time is that of the process. `candidates`: a slate that is
re-ranked from kept candidates, as with exploration. `--traffic`: how many requests reuse what was computed, in
simulated traffic (reuse_traffic.py); the deployment must be a world.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.report import write_report
from benchmarks.serving.reuse_traffic import count_reuse
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.features.store import open_store
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import load_bundle
from handsell.serving.graph.loading import LIVE, OpenedBundle, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics

CONNECTIONS = (1, 8, 32)
OFF, SLATES, CANDIDATES = "computed", "slate", "candidates"


class SharedLog(LocalSink):
    """The event log of several gateways in this process."""

    def close(self) -> None:
        return None


class Gateway:
    """One gateway in this process."""

    def __init__(self, opened: OpenedBundle, log: SqliteWriter, kind: str):
        config = opened.config
        serving = config.serving.model_copy(
            update={"feature_log_share": 0.0, "deadline_ms": 60_000, "reuse_bytes": 0 if kind == OFF else 64_000_000}
        )
        reranking = config.reranking
        if kind == CANDIDATES:
            exploration = reranking.exploration.model_copy(update={"share": 0.1, "choice": "uniform"})
            reranking = reranking.model_copy(update={"exploration": exploration})
        surfaces = {n: s.model_copy(update={"reuse_seconds": 3_600.0}) for n, s in config.surfaces.items()}
        config = config.model_copy(update={"serving": serving, "reranking": reranking, "surfaces": surfaces})
        opened, self.metrics = replace(opened, config=config), Metrics()
        bundle = load_bundle(opened, load_local_stages(opened), open_store(config), self.metrics)
        self.service = Service(bundle, SharedLog(log), self.metrics)
        self.app = build_api(self.service)

    async def recommend(self, user_id: str) -> dict[str, Any]:
        """Return the answer to GET /v1/users/{user_id}/recommendations."""
        path = f"/v1/users/{user_id}/recommendations"
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            assert message.get("status", 200) == 200, message
            parts.append(message.get("body", b""))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"include=debug", "root_path": "",
            "headers": [(b"host", b"127.0.0.1")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        await self.app(scope, receive, send)
        return orjson.loads(b"".join(parts))


async def measure(gateway: Gateway, users: Sequence[str], connections: int, expected: str) -> float:
    """Return milliseconds of processor time per request; raises ValueError where an answer is not as expected."""
    left = iter(users)

    async def ask() -> None:
        for user_id in left:
            answer = await gateway.recommend(user_id)
            if expected not in ("", answer["debug"]["reused"]) or answer["degraded"]:
                raise ValueError(f"expected {expected} to be reused, got {answer}")

    begun = time.process_time()
    await asyncio.gather(*(ask() for _ in range(connections)))
    return 1_000 * (time.process_time() - begun) / len(users)


async def compare(gateways: dict[str, Gateway], users: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each number of connections: medians of the rounds."""
    rows = []
    for connections in CONNECTIONS:
        found: dict[str, list[float]] = {kind: [] for kind in gateways}
        for turn in range(rounds):
            some = random.Random(turn).sample(users, min(len(users), 60))
            for kind, gateway in gateways.items():
                if kind != OFF:
                    await measure(gateway, some, 4, "")  # kept from now on
                found[kind].append(await measure(gateway, some, connections, "nothing" if kind == OFF else kind))
        ms = {kind: sorted(times)[len(times) // 2] for kind, times in found.items()}
        rows.append(
            {"connections": connections}
            | {f"{kind} ms": round(value, 3) for kind, value in ms.items()}
            | {f"{kind} / computed": round(value / ms[OFF], 3) for kind, value in ms.items() if kind != OFF}
        )
    return rows


async def run(config_path: Path, rounds: int) -> None:
    opened = open_bundle(str(config_path), LIVE)
    log = SqliteWriter(Layout(opened.config.state).event_log)
    gateways = {kind: Gateway(opened, log, kind) for kind in (OFF, SLATES, CANDIDATES)}
    users = list_users(opened)
    rows = await compare(gateways, users, rounds)
    for gateway in gateways.values():
        await gateway.service.close()
    log.close()
    about = {"config": str(config_path), "items": len(opened.snapshot), "requests": 60 * rounds}
    write_report("reuse", rows, about)


def list_users(opened: OpenedBundle) -> list[str]:
    """Return some users of the deployment."""
    users = Vocabulary.load(Layout(opened.config.state).catalog / "users")
    chosen = random.Random(0).sample(range(len(users)), min(600, len(users)))
    return users.ids(np.array(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--traffic", action="store_true", help="replay simulated traffic instead")
    parser.add_argument("--users", type=int, default=600, help="simulated listeners")
    options = parser.parse_args()
    if not options.traffic:
        asyncio.run(run(load_config(options.config).source, options.rounds))
        return
    with tempfile.TemporaryDirectory(prefix="handsell-reuse-") as folder:
        rows = count_reuse(options.config, options.users, Path(folder))
    write_report("reuse_traffic", rows, {"config": str(options.config), "listeners": options.users})


if __name__ == "__main__":
    main()
