"""Two gateways with a state folder each, under load, while the stores that they share are killed one after the other.

`play_outages` publishes a deployment in PostgreSQL, Redis and S3, removes its folder, and returns what was answered.
Requests and events go to both gateways; a gateway that is killed is started again, as a pod is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from benchmarks.durability.ledger import Ledger, compare_with_store
from benchmarks.events.event_load import EventLoad, start_event_load
from benchmarks.serving.load_generator import Load, Response, percentile_ms

import gateway_process
from handsell.bundles.opening import open_bundles
from handsell.config import load_config
from handsell.events.store.opening import open_reader
from handsell.features.store import open_store
from handsell.features.views import USER_VIEWS, build_views
from handsell.storage.published_state import open_published_state
from open_sockets import free_ports
from postgresql_server import PostgresServer
from redis_server import RedisServer
from s3_server import S3Server
from serving_world import World, publish_other_bundle, write_world

ROOT = Path(__file__).parents[1]
USERS, QUIET = [f"u{i}" for i in range(18)], "u18"  # QUIET posts no events
ITEMS = [f"i{i}" for i in range(60)]
RATE = 4.0  # requests per second and gateway
AWAY_S, READY_S, FOLLOW_S = 5.0, 300.0, 120.0
DEADLINE_MS = 20_000


def publish_world(folder: Path, port: int) -> tuple[World, str]:
    """Publish a deployment from this machine: two bundles, the registry and the online rows; return the second one."""
    world = write_world(folder, port)
    path = world.config.source  # a busy machine must not be taken for a fault
    path.write_text(path.read_text().replace("deadline_ms = 4000", f"deadline_ms = {DEADLINE_MS}"))
    world = replace(world, config=load_config(path))
    other = publish_other_bundle(world, seed=5)
    store = open_store(world.config)
    store.apply()
    tables = {}
    for name in USER_VIEWS:
        schema = build_views(world.config)[name].schema
        rows = [{**row, "user_id": user} for user, row in world.rows.items()]
        tables[name] = pa.Table.from_pylist([{f.name: row.get(f.name) for f in schema} for row in rows], schema)
    store.write_user_rows(tables)
    open_published_state(world.config).push()
    return world, other


@dataclass
class OwnGateway:
    """A gateway process, its state folder and its load."""

    toml: Path
    home: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.home.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, gateway_process.__file__, str(self.toml), str(self.port)], stdout=log, stderr=log,
                env={**os.environ, "HANDSELL_HOME": str(self.home)}, cwd=ROOT,
            )  # fmt: skip

    def wait_until_ready(self) -> float:
        begun = time.monotonic()
        while time.monotonic() - begun < READY_S:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200:
                    return time.monotonic() - begun
            time.sleep(0.2)
        raise TimeoutError(self.home.with_suffix(".log").read_text()[-4_000:])

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self, user: str = QUIET) -> dict:
        """Return an answer; one that is shed by a busy machine is asked for again."""
        for _ in range(20):
            answer = httpx.get(f"{self.url}/v1/users/{user}/recommendations?surface=email", timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(1)
        return answer.raise_for_status().json()

    def slate(self) -> list[str]:
        return [item["item_id"] for item in self.ask()["items"]]


@dataclass
class SharedNothing:
    """The parts of a running deployment, and what was observed."""

    world: World
    other: str
    gateways: list[OwnGateway]
    loads: list[Load]
    postgresql: PostgresServer
    redis: RedisServer
    s3: S3Server
    seen: dict = field(default_factory=dict)

    def wait_for_bundle(self, bundle: str) -> float | None:
        """Seconds until both gateways answer from a bundle; None: not in time."""
        begun = time.monotonic()
        while time.monotonic() - begun < FOLLOW_S:
            if all(gateway.ask()["release"]["bundle"] == bundle for gateway in self.gateways):
                return round(time.monotonic() - begun, 1)
            time.sleep(0.1)
        return None

    def recover(self, since: float) -> float | None:
        """Seconds from `since` until two seconds without a failed or degraded answer begin."""
        while time.monotonic() - since < FOLLOW_S:
            time.sleep(0.2)
            answers = [answer for load in self.loads for answer in load.responses(since)]
            last = max((a.sent for a in answers if not (a.ok or a.shed) or a.degraded), default=since)
            if any(a.sent > last + 2 for a in answers):
                return round(last - since, 1)
        return None

    @contextlib.contextmanager
    def observe(self, name: str, first: int = 0) -> Iterator[dict]:
        """Summarize the answers to requests in the block, of the gateways from number `first` on."""
        begun, found = time.monotonic(), {}
        yield found
        ended = time.monotonic()
        time.sleep(1.0)
        answers = [a for load in self.loads[first:] for a in load.responses(begun) if a.sent < ended]
        self.seen[name] = summarize(answers) | found


def summarize(answers: list[Response]) -> dict:
    return {
        "n": len(answers), "shed": sum(a.shed for a in answers),
        "failed": dict(Counter(f"{a.status} {a.error}" for a in answers if not (a.ok or a.shed))),
        "degraded": dict(Counter(cause for a in answers for cause in a.degraded)),
        "p99_ms": percentile_ms(answers, 99),
    }  # fmt: skip


def play_outages(folder: Path, servers: tuple[PostgresServer, RedisServer, S3Server]) -> dict:
    """Run everything with servers that have been started; return what was observed."""
    postgresql, redis, s3 = servers
    stores = {
        "HANDSELL_EVENT_STORE": postgresql.create_database(), "HANDSELL_ONLINE_STORE": redis.address,
        "HANDSELL_STORAGE": s3.create_folder(), **s3.environment,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name, value in {**stores, "HANDSELL_HOME": str(folder / "publisher")}.items():
            patch.setenv(name, value)
        world, other = publish_world(folder, *free_ports(1))
        shutil.rmtree(folder / "publisher")  # what serving needs is in the stores
        patch.setenv("HANDSELL_HOME", str(folder / "operator"))
        gateways = [OwnGateway(world.config.source, folder / f"node-{n}") for n in (1, 2)]
        for gateway in gateways:
            stack.callback(gateway.kill)
            gateway.start()
        for gateway in gateways:
            gateway.wait_until_ready()
        loads = [Load(gateway.url, USERS, folder) for gateway in gateways]
        for load in loads:
            stack.callback(load.stop)
            load.set_rate(RATE)
        return play(SharedNothing(world, other, gateways, loads, postgresql, redis, s3), folder)


def play(parts: SharedNothing, folder: Path) -> dict:
    first, second = parts.gateways
    seen, live, bundles = parts.seen, parts.world.bundle, open_bundles(parts.world.config)
    seen["slates"] = [first.slate(), second.slate()]
    event = {"user_id": "a new user", "item_id": "i90", "type": "like"}
    httpx.post(f"{first.url}/v1/events", json={"events": [event]}, timeout=30).raise_for_status()
    seen["cold"] = [gateway.ask("a new user")["cold_start"] for gateway in parts.gateways]
    bundles.promote(parts.other)
    seen["followed"] = [parts.wait_for_bundle(parts.other)]
    bundles.rollback()
    seen["followed"].append(parts.wait_for_bundle(live))
    acknowledged = folder / "acknowledged.txt"
    load = EventLoad(second.url, USERS, ITEMS, "play", 2, 5, 600.0, "load", resend=True, acknowledged=str(acknowledged))
    events = start_event_load(load)
    try:
        play_storage_outages(parts)
        play_store_outages(parts)
    finally:
        events.terminate()
        events.wait()
    seen["slates"] += [first.slate(), second.slate()]
    with closing(open_reader(parts.world.config)) as reader:
        found = compare_with_store(Ledger(set(acknowledged.read_text().split())), reader)
    seen |= {"acknowledged": found.acknowledged, "lost": found.lost, "twice": found.twice}
    seen["folders"] = [sorted(path.name for path in (one.home / "shop").glob("*")) for one in parts.gateways]
    return seen


def play_storage_outages(parts: SharedNothing) -> None:
    """S3 is killed; then it is silent while a gateway is killed; then it is back, and a promotion reaches both."""
    first, second = parts.gateways
    with parts.observe("S3 killed"):
        kept = parts.s3.kill()
        time.sleep(AWAY_S)
    parts.s3.start_again(kept)
    assert parts.s3.process is not None
    with parts.observe("S3 silent, the other gateway killed", first=1) as found:
        os.kill(parts.s3.process.pid, signal.SIGSTOP)  # it accepts connections and does not answer
        time.sleep(1)
        first.kill()
        first.start()
        found["started_s"] = round(first.wait_until_ready(), 1)
        parts.seen["slates"] += [first.slate(), second.slate()]
    os.kill(parts.s3.process.pid, signal.SIGCONT)
    open_bundles(parts.world.config).promote(parts.other)
    parts.seen["followed"].append(parts.wait_for_bundle(parts.other))
    open_bundles(parts.world.config).rollback()
    parts.seen["followed"].append(parts.wait_for_bundle(parts.world.bundle))


def play_store_outages(parts: SharedNothing) -> None:
    """PostgreSQL crashes, then Redis is killed."""
    with parts.observe("PostgreSQL killed"):
        parts.postgresql.stop("immediate")
        time.sleep(AWAY_S)
    back = time.monotonic()
    parts.postgresql.start()
    parts.seen["PostgreSQL killed"]["recovered_s"] = parts.recover(back)
    with parts.observe("Redis killed"):
        parts.redis.kill()
        time.sleep(AWAY_S)
    back = time.monotonic()
    parts.redis.start()
    parts.seen["Redis killed"]["recovered_s"] = parts.recover(back)


def print_outages(seen: dict) -> None:
    """Print one line per outage, for docs/faults.md."""
    for name, found in seen.items():
        if isinstance(found, dict):
            print(f"{name}: {json.dumps(found)}")
    print(f"followed after {seen['followed']} s; {seen['acknowledged']:,} events acknowledged, {seen['lost']} lost")
