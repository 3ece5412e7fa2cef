"""Recall@10 and NDCG@10 of the next basket (Ta-Feng), beside each customer's own most frequent items.

Every customer with two baskets is asked for: the last basket is held out, and the rest is the train table. The pipeline
trains in this process, without Ray, and the bundle answers at the end of the data as a service does. GP-TopFreq lists a
customer's own items by frequency, filled up with the most popular ones. A second and a third comparison count only the
items of the basket that the customer had bought before, and only the others.

    python -m benchmarks repeat_buying                   the next basket
    python -m benchmarks repeat_buying --development     the basket before it, to choose settings
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np

from benchmarks.quality.in_process import keep_in_process, run_in_process
from benchmarks.quality.served_baselines import (
    METRIC,
    TOP,
    TrainLog,
    list_items,
    read_log,
    score_lists,
    score_own_items,
)
from benchmarks.quality.served_quality import IGNORED_VARIABLES, find_data, read_held_out
from benchmarks.quality.served_tables import write_tables
from benchmarks.report import write_report
from handsell.bundles.opening import open_bundles
from handsell.config import Config, load_config
from handsell.core.clock import Clock
from handsell.evaluation.intervals import compare
from handsell.jobs.batch.batch_worker import open_worker
from handsell.jobs.ingest.ingest import prepare
from handsell.jobs.pipeline import run_pipeline
from handsell.local.served import replay

SET, GP_TOPFREQ = "ta-feng", "GP-TopFreq"
PARTS = ("all items", "bought before", "not bought before")


def main() -> None:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks repeat_buying", description=about)
    parser.add_argument("--development", action="store_true", help="hold out the basket before the last one")
    parser.add_argument(
        "--customers", type=int, default=0, metavar="N", help="train and test on about N (default: all)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep tables and state here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="output file (JSON)")
    options = parser.parse_args()
    for name in IGNORED_VARIABLES:
        os.environ.pop(name, None)
    with nullcontext(options.keep) if options.keep else TemporaryDirectory(prefix="baskets-") as place:
        folder = Path(place).resolve()
        os.environ["HANDSELL_HOME"] = str(folder / "home")
        path = write_tables(SET, find_data(), folder, options.development, users=0)
        if options.customers:
            keep_customers(folder, options.customers)
        config = keep_in_process(load_config(path))
        with run_in_process(config):
            prepare(config)  # only numbered data says that it is few enough for this process
            print(run_pipeline(config), flush=True)
        rows = measure(config, folder)
    write_report("repeat_buying", rows, {"tables": "development" if options.development else "test"}, options.out)


def keep_customers(folder: Path, most: int) -> None:
    """Keep the rows of customers drawn by hash, `most` of them, in train.csv and test.csv."""
    tables = {name: (folder / name).read_text("utf-8").splitlines() for name in ("train.csv", "test.csv")}
    users = {line.split(",", 1)[0] for line in tables["test.csv"][1:]}
    kept = set(sorted(users, key=lambda user: zlib.crc32(user.encode()))[:most])
    for name, (header, *rows) in tables.items():
        lines = [header, *(row for row in rows if row.split(",", 1)[0] in kept)]
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")


def measure(config: Config, folder: Path) -> list[dict[str, Any]]:
    """Compare the lists of the newest bundle with GP-TopFreq, over all items of the basket and over parts of it."""
    log = read_log(folder)
    held_out = read_held_out(folder, log)
    users = list(held_out)
    store = open_bundles(config)
    bundle = store.list()[-1]
    now = Clock.of(config.serving.clock, store.show(bundle)).now()
    lists = {
        "slates": replay(open_worker(str(config.source), bundle), users, now),
        GP_TOPFREQ: list_items(log, score_own_items(log, log.counts), users),
    }
    rows = []
    for part, baskets in split_baskets(log, held_out).items():
        rows += compare_lists(part, lists, list(baskets.values()))
    return rows


def split_baskets(log: TrainLog, held_out: dict[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """Return the held-out items of each user: all, those that the user had bought before, and the others."""
    before = {user: {str(item) for item in log.items[log.counts[log.users[user]].indices]} for user in held_out}
    baskets = (
        held_out,
        {user: items & before[user] for user, items in held_out.items()},
        {user: items - before[user] for user, items in held_out.items()},
    )
    return dict(zip(PARTS, baskets, strict=True))


def compare_lists(part: str, lists: dict[str, list[list[str]]], baskets: Sequence[set[str]]) -> list[dict[str, Any]]:
    """Build a row per metric: both lists over the users whose basket has such items, and their difference."""
    asked = [place for place, items in enumerate(baskets) if items]
    scored = {
        name: score_lists([rows[place] for place in asked], [baskets[place] for place in asked])
        for name, rows in lists.items()
    }
    ours, theirs = scored["slates"], scored[GP_TOPFREQ]
    rows = []
    for metric, own, other in (
        (f"recall@{TOP}", ours.recall, theirs.recall), (METRIC, ours.ndcg, theirs.ndcg)
    ):  # fmt: skip
        found = compare(own, other, np.arange(len(asked)))
        rows.append(
            {
                "items": part, "users": len(asked), "metric": metric, "slates": found.challenger,
                GP_TOPFREQ: found.baseline, "difference": found.difference, "low": found.low, "high": found.high,
                "outcome": found.outcome,
            }
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
