"""Rounds against a running service: kill -9 of a gateway, of the writer, of the processor or of a proxy under load."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from contextlib import closing

import psutil

from benchmarks.durability.ledger import Comparison, Ledger, compare_with_store
from benchmarks.events.event_load import EventLoad, start_event_load
from benchmarks.events.event_run import choose_items, choose_store, copy_deployment, find_counted_type
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import ServingLayout, start_layout
from handsell.config import Config
from handsell.events.store.opening import open_reader

PARTS = ("Gateway", "EventLog", "StreamProcessor", "proxy")
CONNECTIONS, BATCH = 4, 10
LONGEST_S, BACK_S = 3.0, 60.0
ENDED_S = 20.0  # the load goes on for this long after the last round


def kill_parts(graph: GraphProcesses, rounds: int, rng: random.Random) -> Counter[str]:
    """Kill parts at random moments; the next round begins when the killed part has a process again."""
    killed: Counter[str] = Counter()
    for _ in range(rounds):
        time.sleep(rng.uniform(0.1, LONGEST_S))
        name = rng.choice([part for part in PARTS if graph.find(part)])
        victim = rng.choice(graph.find(name))
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        killed[name] += 1
        print(f"  service {sum(killed.values())}/{rounds}: {name}", flush=True)
        until = time.monotonic() + BACK_S
        while time.monotonic() < until and not any(one.pid != victim.pid for one in graph.find(name)):
            time.sleep(0.1)
    return killed


def run_gateway_rounds(
    store: str, original: Config, users: list[str], rounds: int, rng: random.Random
) -> tuple[Counter[str], Comparison]:
    """Kill parts of a service on a store under load; return what was killed, and what became of the events."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(choose_store(store))
        config, folder = stack.enter_context(copy_deployment(original))
        replicas = {"Gateway": 2}
        layout = ServingLayout(f"durability {store}", "graph", min_replicas=replicas)
        service = stack.enter_context(start_layout(layout, config, folder))
        acknowledged = folder / "acknowledged.txt"
        seconds = rounds * (LONGEST_S + 6) + ENDED_S
        load = EventLoad(
            service.url, users, choose_items(config), find_counted_type(config), CONNECTIONS, BATCH, seconds,
            f"http-{store}", resend=True, acknowledged=str(acknowledged),
        )  # fmt: skip
        process = start_event_load(load)
        stack.callback(process.kill)
        killed = kill_parts(GraphProcesses(service), rounds, rng)
        time.sleep(ENDED_S / 2)
        process.terminate()  # clients stop; what they saw acknowledged is in the file
        process.wait()
        ledger = Ledger(acknowledged=set(acknowledged.read_text().split()))
        with closing(open_reader(config)) as reader:
            return killed, compare_with_store(ledger, reader)
