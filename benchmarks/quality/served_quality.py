"""What do callers get? Own tables → `handsell up` → HTTP → NDCG@10 on held-out likes, beside baselines on them.

    python -m benchmarks served_quality --sets ml-100k beauty         cut, train, serve, ask and stop, set by set
    python -m benchmarks served_quality --development                 the same one step earlier, for making choices
    python -m benchmarks served_quality --baselines                   the baselines alone
    python -m benchmarks served_quality --folder FOLDER               tables that were cut (ports go into served.toml)
    python -m benchmarks served_quality --url URL --folder FOLDER     a service that runs already, on these tables
    python -m benchmarks served_quality --cut SET FOLDER              only write the tables

A list is the answer to one request for ten items. Its NDCG@10 has min(10, held-out items) hits as its ideal. Users are
drawn with replacement for every interval, and the best baseline is the best on the very users that are judged.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy: the service's cores are not taken from it

import httpx
import numpy as np

from benchmarks.quality.served_baselines import (
    METRIC,
    TOP,
    Judged,
    build_baselines,
    describe,
    judge,
    list_items,
    read_log,
)
from benchmarks.quality.served_tables import CONFIG, SETS, find_set, require, write_tables
from benchmarks.report import report
from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.evaluation.intervals import compare
from handsell.local.bundles import open_bundles, resolve
from handsell.local.cluster import ray_folder

SERVED = "served"
THREADS = 4
PORTS = range(20_000, 30_000)  # above those of Ray's workers, below those that the system hands out
PORT_KEYS = (("serving", "port"), ("jobs", "gcs_port"), ("jobs", "dashboard_port"))
FOREIGN = ("HANDSELL_DATA", "HANDSELL_CONFIG", "HANDSELL_ONLINE_STORE", "RAY_ADDRESS", "RAY_DASHBOARD_ADDRESS")


def main() -> None:
    options = _options()
    try:
        if options.cut:
            name, folder = options.cut
            return print(write_tables(name, find_data(), Path(folder), options.development, options.users))
        if options.url and not options.folder:
            raise HandsellError("--url needs --folder: the tables that the service was trained on, and test.csv")
        for name in () if options.folder else options.sets:
            find_set(name)
    except HandsellError as error:
        sys.exit(f"error: {error}")
    sys.exit(run(options))


def _options() -> argparse.Namespace:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks served_quality", description=about)
    add = parser.add_argument
    add(
        "--sets",
        nargs="+",
        default=list(SETS),
        metavar="SET",
        help=f"of {', '.join(SETS)}; all unless told otherwise",
    )
    add("--development", action="store_true", help="hold out what precedes the test part, and drop the test part")
    add("--users", type=int, metavar="N", help="test users at most, 0: all (4000 of ta-feng, else all)")
    add("--baselines", action="store_true", help="no service: the baselines alone")
    add("--cut", nargs=2, metavar=("SET", "FOLDER"), help="write the tables of a set into a folder, and end")
    add("--url", help="ask this running service instead of starting one")
    add("--folder", type=Path, help="tables that were cut before, instead of --sets")
    add("--keep", type=Path, metavar="FOLDER", help="tables, state and logs stay here, one folder per set")
    add("--topology", choices=("graph", "fused"), default="graph", help="of `handsell up`")
    add("--out", type=Path, metavar="FILE", help="where the figures are written as JSON")
    return parser.parse_args()


def find_data() -> Path:
    """The folder of the data sets: $HANDSELL_TEST_DATA, or shared/data beside the checkout."""
    given = os.environ.get("HANDSELL_TEST_DATA")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "data"


def run(options: argparse.Namespace) -> int:
    """Measure every set and report; a set that fails is named and the others are measured."""
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
        report("served_quality", summary or rows, about, options.out, {"contenders": rows} if summary else {})
    return bool(failed)


def measure(name: str, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of all contenders on one set, and one of the service against the best baseline (none without a service)."""
    passing = partial(TemporaryDirectory, prefix="served-", ignore_cleanup_errors=True)
    with contextlib.nullcontext(options.keep / name) if options.keep else passing() as place:
        work = Path(place).resolve()
        folder = (options.folder or work).resolve()
        if not options.folder:
            write_tables(name, find_data(), folder, options.development, options.users)
        wanted, judged = judge_baselines(name, folder)
        if options.baselines:
            return describe(name, judged), []
        best = max(judged, key=lambda baseline: judged[baseline].ndcg.mean())
        serving = contextlib.nullcontext(options.url) if options.url else start_service(folder, work, options.topology)
        with serving as url:
            lists, faults = ask(url, list(wanted))
        judged[SERVED] = judge(lists, list(wanted.values()))
        row = {"set": name, "users": len(wanted), "best": best, **contrast(judged[SERVED], judged[best])}
        row |= {"report": None if options.url else read_report(folder / CONFIG), "faults": faults}
        print(row, flush=True)
        return describe(name, judged), [row]


def judge_baselines(name: str, folder: Path) -> tuple[dict[str, set[str]], dict[str, Judged]]:
    """What test users of the train table held out, and how good each baseline's lists are."""
    log = read_log(folder)
    test = defaultdict(set)
    with require(folder / "test.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            test[row["user_id"]].add(row["item_id"])
    wanted = {user: items for user, items in sorted(test.items()) if user in log.users}
    if not wanted:
        raise HandsellError(f"{folder / 'test.csv'}: expected users of train.csv, got none; cut the tables again")
    judged = {}
    for baseline, fit in build_baselines(log).items():
        judged[baseline] = judge(list_items(log, fit(), list(wanted)), list(wanted.values()))
        print(f"{name}: {baseline}: {METRIC} {judged[baseline].ndcg.mean():.4f}", flush=True)
    return wanted, judged


def contrast(served: Judged, best: Judged) -> dict[str, float]:
    """The service against the best baseline, with 95 % intervals of their ratio and difference."""
    c = compare(served.ndcg, best.ndcg, np.arange(len(best.ndcg)))
    return {
        "served": c.challenger, "ratio": 1 + c.relative, "from": 1 + c.relative_low, "to": 1 + c.relative_high,
        "diff": c.difference, "low": c.low, "high": c.high,
    }  # fmt: skip


@contextlib.contextmanager
def start_service(folder: Path, work: Path, topology: str) -> Iterator[str]:
    """Bring the tables up with `handsell up` on free ports and a home of its own; its address, and down afterwards."""
    path, log = require(folder / CONFIG), work / "up.log"
    work.mkdir(parents=True, exist_ok=True)
    os.environ["HANDSELL_HOME"] = str(work / "home")
    port = set_ports(path)
    print(f"handsell up {path} --topology {topology} (it prints to {log})", flush=True)
    try:
        if code := _handsell(log, "up", str(path), "--topology", topology):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise HandsellError(f"`handsell up {path}` ended with {code}; its last lines:\n{tail}")
        yield f"http://127.0.0.1:{port}"
    finally:
        _handsell(log, "down", str(path))
        shutil.rmtree(ray_folder(load_config(path)), ignore_errors=True)


def _handsell(log: Path, *arguments: str) -> int:
    env = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    command = [sys.executable, "-m", "handsell", *arguments]
    with log.open("a") as out:
        return subprocess.run(command, stdout=out, stderr=out, env=env).returncode


def set_ports(path: Path) -> int:
    """Write free ports for the service, Ray and its dashboard into a config; the service's."""
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
    """Ports on which nothing listens."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise HandsellError(f"no {count} ports between {PORTS[0]} and {PORTS[-1]} are free: stop what listens there")


def ask(url: str, users: Sequence[str]) -> tuple[list[list[str]], int]:
    """The list of each user, empty where the service failed; and how many answers failed or were degraded."""
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client, ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda user: _slate(client, user), users))
    given = [answer for answer in answers if not isinstance(answer, str)]
    if not given:
        raise HandsellError(f"{url} answered none of {len(users)} requests, at first with {answers[0]}: is it up?")
    failed, degraded = len(users) - len(given), sum(bool(answer["degraded"]) for answer in given)
    print(f"{len(users)} asked, {failed} failed, {degraded} degraded", flush=True)
    lists = [[] if isinstance(answer, str) else [item["item_id"] for item in answer["items"]] for answer in answers]
    return lists, failed + degraded


def _slate(client: httpx.Client, user: str) -> dict[str, Any] | str:
    try:
        answer = client.get(f"/v1/users/{quote(user, safe='')}/recommendations", params={"count": TOP})
    except httpx.HTTPError as error:
        return repr(error)
    return answer.json() if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"


def read_report(path: Path) -> float | None:
    """What the live bundle's own report says of NDCG@10: as served where it tells that, else of the funnel."""
    store = open_bundles(load_config(path))
    document = json.loads((store.local_path(resolve(store, "live")) / "report.json").read_text("utf-8"))
    if document.get(SERVED):
        return document[SERVED]["contenders"]["funnel"]["ndcg"]
    return document["contenders"]["funnel"]["metrics"].get(METRIC)


if __name__ == "__main__":
    main()
