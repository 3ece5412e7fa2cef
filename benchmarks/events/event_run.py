"""Acknowledged events per second, and how soon answers change after an event.

    make up && make down && python -m benchmarks events
    python -m benchmarks events --stores sqlite --ingress plain --seconds 20

For each store (sqlite, and a PostgreSQL server in a temporary folder) and each proxy: events per second in POSTs of one
event and of `--batch`, over `--connections` connections, all acknowledged after their commit. `checked`: the store
holds as many events as were acknowledged. Also, without other load and when the stream processor is idle:
milliseconds from a new user's first event to a slate that takes it into account (POST and GET, repeated until it does).
And seconds from the PUT of a new item until it is a candidate beside one of the same metadata. The deployment's own
store is not touched: the service runs on a copy of its state. Load generator, service and store share the machine's
cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import httpx
import numpy as np

from benchmarks.events.event_load import EventLoad, run_event_load
from benchmarks.events.postgresql_server import start_postgresql
from benchmarks.report import measure_cpu_speed, write_report
from benchmarks.serving.layouts import RunningService, ServingLayout, start_layout
from benchmarks.serving.smoke import sample_users, summarize
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.features.store import open_store
from handsell.local.ownership import OWNER
from handsell.maintenance.trimming import PROCESSOR

STORE = "HANDSELL_EVENT_STORE"
STORES, INGRESSES = ("sqlite", "postgresql"), ("plain", "haproxy")
WARM_S = 4.0
LEFT_OUT = ("events", "logs", "run", "jobs", "features_log")  # folders of the state that the service does not read
ANSWER_S = 10.0
FOLLOWED_S = 60.0
NEW_ITEM_S = 20.0
NEW_ITEMS = 5


@contextlib.contextmanager
def copy_deployment(config: Config) -> Iterator[tuple[Config, Path]]:
    """Copy a deployment's state without its event store; yields the config of the copy and a folder for files."""
    before = os.environ.get("HANDSELL_HOME")
    with tempfile.TemporaryDirectory(prefix="handsell-events-") as folder:
        home = Path(folder, "home")
        left_out = {Layout(config.state).event_log.parent.name, *LEFT_OUT}

        def ignore(path: str, names: list[str]) -> set[str]:
            return left_out & set(names) if Path(path) == config.state else set()

        shutil.copytree(config.state, home / config.state.name, ignore=ignore)
        (home / config.state.name / OWNER).unlink(missing_ok=True)  # variants of the config use the copy
        os.environ["HANDSELL_HOME"] = str(home)
        try:
            copied = load_config(config.source)
            (Layout(copied.state).feast / "registry.db").unlink()  # it has the paths of the original
            open_store(copied).apply()
            yield copied, Path(folder)
        finally:
            os.environ.pop("HANDSELL_HOME")
            if before is not None:
                os.environ["HANDSELL_HOME"] = before


@contextlib.contextmanager
def choose_store(store: str) -> Iterator[None]:
    """Set the event store of processes that start meanwhile."""
    with contextlib.ExitStack() as stack:
        url = store
        if store == "postgresql":
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-postgresql-")))
            url = stack.enter_context(start_postgresql(place)).url
        os.environ[STORE] = url
        stack.callback(os.environ.pop, STORE)
        yield


def choose_items(config: Config) -> list[str]:
    items = Vocabulary.load(Layout(config.state).catalog / "items")
    return list(items.ids(np.arange(min(len(items), 1_000))))


def measure_throughput(service: RunningService, load: EventLoad) -> dict:
    """Run one load and compare the number of acknowledged events with that of stored ones."""
    reader = open_reader(service.config)
    before, cpu, speed = count_events(reader), service.cpu_s(), measure_cpu_speed()
    found = run_event_load(load)
    found["CPU ms"] = (service.cpu_s() - cpu) / max(found["posts"], 1) * 1e3
    found["speed"] = speed
    stored = count_events(reader) - before
    found["checked"] = stored == found["accepted"] if not found["failures"] else stored >= found["accepted"]
    reader.close()
    return found


def count_events(reader) -> int:
    """Count the stored events in parts, from the last one counted."""
    count, after = 0, 0
    while offsets := reader.scan(after, 50_000)["offset"]:
        count, after = count + len(offsets), offsets[-1]
    return count


def wait_for_processor(service: RunningService) -> None:
    """Wait until the stream processor has folded all stored events: what follows is measured without its work."""
    with contextlib.closing(open_reader(service.config)) as reader:
        until = time.monotonic() + FOLLOWED_S
        while reader.last_offset() > reader.read_position(PROCESSOR):
            if time.monotonic() > until:
                raise TimeoutError(f"the stream processor did not follow within {FOLLOWED_S:.0f} s")
            time.sleep(0.2)


def measure_change(service: RunningService, items: list[str], kind: str, samples: int) -> list[float]:
    """Return ms from the first event of each new user to a slate that is not a cold start, POST included."""
    found = []
    with httpx.Client(base_url=service.url, timeout=ANSWER_S, trust_env=False) as client:
        for number in range(samples):
            user, begun = f"new-{time.time_ns()}-{number}", time.perf_counter()
            event = {"user_id": user, "item_id": items[number % len(items)], "type": kind}
            client.post("/v1/events", json={"events": [event]}).raise_for_status()
            while client.get(f"/v1/users/{user}/recommendations").json()["cold_start"]:
                if time.perf_counter() > begun + ANSWER_S:
                    raise TimeoutError(f"the slate of {user} did not change within {ANSWER_S:.0f} s of the event")
            found.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.02)
    return found


def measure_new_items(service: RunningService, items: list[str], samples: int) -> list[float | None]:
    """Return seconds from the PUT of a new item until it is a candidate beside one of the same metadata.

    Whether it is among the first 30 is the ranker's decision: a filter on its title leaves no other.
    """
    found: list[float | None] = []
    with httpx.Client(base_url=service.url, timeout=ANSWER_S, trust_env=False) as client:
        for number in range(samples):
            like, new = items[number * 7 % len(items)], f"new-{time.time_ns()}"
            row = client.get(f"/v1/items/{like}").raise_for_status().json()
            fields = {k: v for k, v in row.items() if k in ("creators", "tags", "text")} | {"title": new}
            begun = time.monotonic()
            client.put(f"/v1/items/{new}", json=fields).raise_for_status()
            similar, only = f"/v1/items/{like}/similar", {"filter": f"item.title == '{new}'"}
            while new not in [item["item_id"] for item in client.get(similar, params=only).json()["items"]]:
                if time.monotonic() > begun + NEW_ITEM_S:
                    found.append(None)
                    break
                time.sleep(0.05)
            else:
                found.append(time.monotonic() - begun)
    return found


def find_counted_type(config: Config) -> str:
    """An event type that counts as an interaction."""
    return next(name for name, kind in config.events.types.items() if kind.weight > 0 and kind.seen)


def measure_service(
    store: str, ingress: str, service: RunningService, users: list[str], options: argparse.Namespace
) -> tuple[list[dict], dict]:
    items, kind = choose_items(service.config), find_counted_type(service.config)
    rows = []
    warm = EventLoad(service.url, users, items, kind, 4, 10, WARM_S, f"warm-{time.time_ns()}")
    run_event_load(warm)
    wait_for_processor(service)
    change = summarize(measure_change(service, items, kind, options.samples))
    for batch in (options.batch, 1):
        for connections in options.connections:
            prefix = f"{time.time_ns()}"
            load = EventLoad(service.url, users, items, kind, connections, batch, options.seconds, prefix)
            found = measure_throughput(service, load)
            rows.append(
                {
                    "store": store, "proxy": ingress, "batch": batch, "c": connections,
                    **{name: found[name] for name in ("events per s", "p50 ms", "p99 ms", "CPU ms", "speed")},
                    "failed": sum(found["failures"].values()), "checked": str(found["checked"]),
                }
            )  # fmt: skip
            print(f"  {rows[-1]} {found['failures'] or ''}", flush=True)
    changed = {"store": store, "proxy": ingress, **{k: change[k] for k in ("n", "p50", "p95", "p99")}}
    waits = measure_new_items(service, items, NEW_ITEMS)
    shown = [wait for wait in waits if wait is not None]
    changed |= {
        "new items": len(waits), "shown": len(shown), "median s": float(np.median(shown)) if shown else None,
        "longest s": max(shown, default=None),
    }  # fmt: skip
    print(f"  {changed}", flush=True)
    return rows, changed


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks events", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--ingress", nargs="+", choices=INGRESSES, default=INGRESSES)
    parser.add_argument("--topology", choices=("graph", "fused"), default="graph")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--samples", type=int, default=200, help="new users whose first slate is timed")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="output file")
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    original = load_config(options.config)
    users = sample_users(original, options.users)
    rows, changes = [], []
    for store in options.stores:
        for ingress in options.ingress:
            print(f"{time.strftime('%H:%M:%S')} {store}, {ingress} …", flush=True)
            layout = ServingLayout(f"{store} {ingress}", options.topology, ingress)
            with contextlib.ExitStack() as stack:
                config, folder = stack.enter_context(copy_deployment(original))
                stack.enter_context(choose_store(store))
                service = stack.enter_context(start_layout(layout, config, folder))
                found, changed = measure_service(store, ingress, service, users, options)
            rows += found
            changes.append(changed)
    about = {"topology": options.topology, "seconds": options.seconds, "users": len(users)}
    write_report(
        "events",
        rows,
        about,
        options.json,
        {"time until answers change: ms after a new user's first event, s after the PUT of a new item": changes},
    )
    sys.exit(any(row["checked"] != "True" for row in rows))


if __name__ == "__main__":
    main()
