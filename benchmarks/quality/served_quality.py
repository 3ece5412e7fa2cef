"""NDCG@10 of a service over HTTP on held-out likes, beside simple baselines on the same tables.

    python -m benchmarks served_quality --sets ml-100k beauty         split, train, serve, request and stop, set by set
    python -m benchmarks served_quality --development                 the same on an earlier split, to choose settings
    python -m benchmarks served_quality --baselines                   the baselines alone
    python -m benchmarks served_quality --folder FOLDER               existing tables (ports go into served.toml)
    python -m benchmarks served_quality --url URL --folder FOLDER     a running service, trained on these tables
    python -m benchmarks served_quality --cut SET FOLDER              only write the tables

Each user's list is the response to one request for ten items. The ideal of NDCG@10 is min(10, held-out items) hits.
Intervals resample users, and the best baseline is the best on the users tested.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, to leave the cores to the service

import httpx
import numpy as np

from benchmarks.quality.served_baselines import (
    METRIC,
    TOP,
    ListMetrics,
    TrainLog,
    build_baselines,
    build_rows,
    list_items,
    read_log,
    score_lists,
)
from benchmarks.quality.served_tables import CONFIG, SETS, find_set, require, write_tables
from benchmarks.report import write_report
from handsell.bundles.opening import open_bundles
from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.evaluation.intervals import compare
from handsell.local.bundles import resolve_bundle
from handsell.local.cluster import ray_folder

SERVED = "served"
THREADS = 4
PORTS = range(20_000, 30_000)  # above the ports of Ray's workers, below the ephemeral ports
PORT_KEYS = (("serving", "port"), ("jobs", "gcs_port"), ("jobs", "dashboard_port"))
IGNORED_VARIABLES = (
    "HANDSELL_DATA",
    "HANDSELL_CONFIG",
    "HANDSELL_ONLINE_STORE",
    "RAY_ADDRESS",
    "RAY_DASHBOARD_ADDRESS",
)


def main() -> None:
    options = _parse_options()
    try:
        if options.cut:
            name, folder = options.cut
            return print(write_tables(name, find_data(), Path(folder), options.development, options.users))
        if options.url and not options.folder:
            raise HandsellError("--url needs --folder, with test.csv and the tables that the service was trained on")
        for name in () if options.folder else options.sets:
            find_set(name)
    except HandsellError as error:
        sys.exit(f"error: {error}")
    sys.exit(run(options))


def _parse_options() -> argparse.Namespace:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks served_quality", description=about)
    add = parser.add_argument
    add(
        "--sets",
        nargs="+",
        default=list(SETS),
        metavar="SET",
        help=f"any of {', '.join(SETS)} (default: all)",
    )
    add("--development", action="store_true", help="drop the test part, and hold out the part before it")
    add("--users", type=int, metavar="N", help="at most N test users; 0: all (default: 4000 for ta-feng, else all)")
    add("--baselines", action="store_true", help="only the baselines, without a service")
    add("--cut", nargs=2, metavar=("SET", "FOLDER"), help="write the tables of a set to a folder and exit")
    add("--url", help="use this running service instead of starting one")
    add("--folder", type=Path, help="use existing tables instead of --sets")
    add("--keep", type=Path, metavar="FOLDER", help="keep tables, state and logs here, one folder per set")
    add("--topology", choices=("graph", "fused"), default="graph", help="of `handsell up`")
    add("--out", type=Path, metavar="FILE", help="output file (JSON)")
    return parser.parse_args()


def find_data() -> Path:
    """Folder of the data sets: $HANDSELL_TEST_DATA, or shared/data beside the checkout."""
    folder = os.environ.get("HANDSELL_TEST_DATA")
    return Path(folder) if folder else Path(__file__).parents[3] / "shared" / "data"


def run(options: argparse.Namespace) -> int:
    """Measure every set and write the report; continue after a set that fails."""
    names = [options.folder.name] if options.folder else options.sets
    rows, summary, failed = [], [], []
    for name in names:
        try:
            found, whole = measure(name, options)
        except HandsellError as error:
            print(f"error: {name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        rows += found
        summary += whole
    if rows:
        about = {"tables": str(options.folder or ("development" if options.development else "test"))}
        about |= {"topology": options.topology} | ({"failed": ", ".join(failed)} if failed else {})
        write_report("served_quality", summary or rows, about, options.out, {"models": rows} if summary else {})
    return bool(failed)


def measure(name: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of all models on one set, and a row that compares the service, if any, with the best baseline."""
    temporary = partial(TemporaryDirectory, prefix="served-", ignore_cleanup_errors=True)
    with contextlib.nullcontext(options.keep / name) if options.keep else temporary() as place:
        work = Path(place).resolve()
        folder = (options.folder or work).resolve()
        if not options.folder:
            write_tables(name, find_data(), folder, options.development, options.users)
        held_out, scored = score_baselines(name, folder)
        if options.baselines:
            return build_rows(name, scored), []
        best = max(scored, key=lambda baseline: scored[baseline].ndcg.mean())
        serving = contextlib.nullcontext(options.url) if options.url else start_service(folder, work, options.topology)
        with serving as url:
            lists, failures = request_lists(url, list(held_out))
        scored[SERVED] = score_lists(lists, list(held_out.values()))
        row = {"set": name, "users": len(held_out), "best": best, **compare_models(scored[SERVED], scored[best])}
        row |= {"report": None if options.url else read_report(folder / CONFIG), "failed or degraded": failures}
        print(row, flush=True)
        return build_rows(name, scored), [row]


def score_baselines(name: str, folder: Path) -> tuple[dict[str, set[str]], dict[str, ListMetrics]]:
    """Return the held-out items of each user who is in train.csv, and the metrics of each baseline."""
    log = read_log(folder)
    held_out = read_held_out(folder, log)
    scored = {}
    for baseline, fit in build_baselines(log).items():
        scored[baseline] = score_lists(list_items(log, fit(), list(held_out)), list(held_out.values()))
        print(f"{name}: {baseline}: {METRIC} {scored[baseline].ndcg.mean():.4f}", flush=True)
    return held_out, scored


def read_held_out(folder: Path, log: TrainLog) -> dict[str, set[str]]:
    """Return the held-out items of each user who is in train.csv; raises HandsellError where there is none."""
    test = defaultdict(set)
    with require(folder / "test.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            test[row["user_id"]].add(row["item_id"])
    held_out = {user: items for user, items in sorted(test.items()) if user in log.users}
    if not held_out:
        raise HandsellError(f"{folder / 'test.csv'}: expected users of train.csv, got none; cut the tables again")
    return held_out


def compare_models(served: ListMetrics, best: ListMetrics) -> dict[str, float]:
    """Compare the service with the best baseline: 95 % intervals of ratio and difference."""
    c = compare(served.ndcg, best.ndcg, np.arange(len(best.ndcg)))
    return {
        "served": c.challenger, "ratio": 1 + c.relative, "from": 1 + c.relative_low, "to": 1 + c.relative_high,
        "diff": c.difference, "low": c.low, "high": c.high,
    }  # fmt: skip


@contextlib.contextmanager
def start_service(folder: Path, work: Path, topology: str) -> Iterator[str]:
    """Run `handsell up` on free ports in a new home folder, yield the address, and run `handsell down` afterwards."""
    path, log = require(folder / CONFIG), work / "up.log"
    work.mkdir(parents=True, exist_ok=True)
    os.environ["HANDSELL_HOME"] = str(work / "home")
    port = set_ports(path)
    print(f"handsell up {path} --topology {topology} (log: {log})", flush=True)
    try:
        if code := _run_handsell(log, "up", str(path), "--topology", topology):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise HandsellError(f"`handsell up {path}` failed with status {code}; its last lines:\n{tail}")
        yield f"http://127.0.0.1:{port}"
    finally:
        _run_handsell(log, "down", str(path))
        shutil.rmtree(ray_folder(load_config(path)), ignore_errors=True)


def _run_handsell(log: Path, *arguments: str) -> int:
    env = {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES}
    command = [sys.executable, "-m", "handsell", *arguments]
    with log.open("a") as out:
        return subprocess.run(command, stdout=out, stderr=out, env=env).returncode


def set_ports(path: Path) -> int:
    """Write free ports for the service, Ray and its dashboard into a config; return the port of the service."""
    ports = find_ports(len(PORT_KEYS))
    text = path.read_text("utf-8")
    for (section, key), value in zip(PORT_KEYS, ports, strict=True):
        text = re.sub(rf"^{key}\s*=.*\n", "", text, flags=re.MULTILINE)
        header = f"[{section}]\n"
        text = text if header in text else f"{text.rstrip()}\n\n{header}"
        text = text.replace(header, f"{header}{key} = {value}\n")
    path.write_text(text, "utf-8")
    return ports[0]


def find_ports(count: int) -> list[int]:
    """Find free ports."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise HandsellError(f"fewer than {count} ports between {PORTS[0]} and {PORTS[-1]} are free: stop other services")


def request_lists(url: str, users: Sequence[str]) -> tuple[list[list[str]], int]:
    """Return the list of each user, empty after a failure, and the number of failed or degraded responses."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client, ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda user: _request_slate(client, user), users))
    slates = [answer for answer in answers if not isinstance(answer, str)]
    if not slates:
        raise HandsellError(f"all {len(users)} requests to {url} failed, the first with {answers[0]}: is it running?")
    failed, degraded = len(users) - len(slates), sum(bool(answer["degraded"]) for answer in slates)
    print(f"{len(users)} requests, {failed} failed, {degraded} degraded", flush=True)
    lists = [[] if isinstance(answer, str) else [item["item_id"] for item in answer["items"]] for answer in answers]
    return lists, failed + degraded


def _request_slate(client: httpx.Client, user: str) -> dict[str, Any] | str:
    try:
        answer = client.get(f"/v1/users/{quote(user, safe='')}/recommendations", params={"count": TOP})
    except httpx.HTTPError as error:
        return repr(error)
    return answer.json() if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


def read_report(path: Path) -> float | None:
    """Read NDCG@10 from the report of the live bundle: the served figure if it has one, else that of the funnel."""
    store = open_bundles(load_config(path))
    document = json.loads((store.local_path(resolve_bundle(store, "live")) / "report.json").read_text("utf-8"))
    if document.get(SERVED):
        return document[SERVED]["models"]["funnel"]["ndcg"]
    return document["models"]["funnel"]["metrics"].get(METRIC)


if __name__ == "__main__":
    main()
