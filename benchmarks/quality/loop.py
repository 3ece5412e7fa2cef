"""The loop: a bundle trained with more days of logged traffic beside one without, on the users' later behavior.

A world's log is cut. The source tables end at a day; `--more` days after it arrive through the event store, with the
impressions as served slates; `--later` days after those are held out. `handsell train` runs before and after the days
in the middle. Both bundles then make a slate for every user at the same time, the start of the held-out days: relevant
is what the user listens to in them. The first bundle is asked twice: with the user's events of the days in the middle
in the request, as a service reads them from the store, and before they were stored.

    python -m benchmarks loop --seeds 21 22
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.quality.ablation import start_private_cluster
from benchmarks.quality.served_baselines import score_lists
from benchmarks.report import write_report
from handsell.bundles.opening import open_bundles
from handsell.config import Config, load_config
from handsell.core.units import DAY_US
from handsell.data import world
from handsell.data.config import WorldConfig
from handsell.evaluation.intervals import compare_all
from handsell.events.store.opening import open_writer
from handsell.jobs.batch.batch_worker import open_worker
from handsell.jobs.pipeline import run_pipeline
from handsell.local.served import replay

WORLD = Path(__file__).parents[2] / "deployments" / "configs" / "world.toml"
WITHOUT, READ, TRAINED = "without the days", "days read by requests", "trained with the days"
BATCH = 5_000  # events of one append
SOURCE = """
[data]
format = "tables"
path = "source"
[data.tables.events]
path = "events.parquet"
[data.tables.items]
path = "items.parquet"
[data.tables.users]
path = "users.parquet"
"""


@dataclass
class LoopScores:
    """NDCG@10 by bundle, one array per world, and a group of each user."""

    ndcg: dict[str, list[np.ndarray]] = field(default_factory=dict)
    user: list[np.ndarray] = field(default_factory=list)
    active: list[np.ndarray] = field(default_factory=list)  # whether the user did something in the days in the middle
    origins: list[dict[str, int]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks loop", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21], help="seeds of the worlds")
    parser.add_argument("--users", type=int, default=1_500, help="listeners of a world")
    parser.add_argument("--items", type=int, default=2_000, help="tracks of a world")
    parser.add_argument("--days", type=int, default=16, help="days of a world's log, all parts together")
    parser.add_argument("--more", type=int, default=3, help="days that arrive through the event store")
    parser.add_argument("--later", type=int, default=3, help="days that are held out")
    parser.add_argument("--requests", type=int, default=2_000, help="split.max_requests of the trainings")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    found = LoopScores()
    with tempfile.TemporaryDirectory(prefix="handsell-loop-") as folder:
        os.environ["HANDSELL_HOME"] = str(Path(folder) / "home")
        for seed in options.seeds:
            measure(Path(folder) / str(seed), seed, options, found)
    about = {"worlds": len(options.seeds), "listeners": options.users, "days": options.days, "more": options.more}
    write_report("loop", build_rows(found), about | {"data": found.origins[-1]}, options.json)


def measure(folder: Path, seed: int, options: argparse.Namespace, found: LoopScores) -> None:
    """Train twice on one world, and score both bundles on the held-out days."""
    events = generate(folder, seed, options)
    time = events["time"].cast(pa.int64()).to_numpy()
    end = time.max() // DAY_US * DAY_US + DAY_US
    now, cut = end - options.later * DAY_US, end - (options.later + options.more) * DAY_US
    pq.write_table(events.filter(pa.array(time < cut)), folder / "source" / "events.parquet")
    config = write_config(folder, seed, options)
    middle, later = (events.filter(pa.array((time >= a) & (time < b))) for a, b in ((cut, now), (now, end)))
    held_out = list_relevant(later, config)
    with start_private_cluster(config):
        print(run_pipeline(config), flush=True)
        early = sorted(set(pc.unique(events.filter(pa.array(time < cut))["user_id"]).to_pylist()) & set(held_out))
        lists = {WITHOUT: recommend(config, early, now)}
        append(config, middle)
        lists[READ] = recommend(config, early, now)
        print(run_pipeline(config), flush=True)
        lists[TRAINED] = recommend(config, early, now)
    for name, rows in lists.items():
        found.ndcg.setdefault(name, []).append(score_lists(rows, [held_out[user] for user in early]).ndcg)
    found.user.append(np.arange(len(early)) + seed * 10**7)
    found.active.append(np.isin(early, pc.unique(middle["user_id"]).to_pylist()))
    found.origins.append(read_origins(config))


def generate(folder: Path, seed: int, options: argparse.Namespace) -> pa.Table:
    """Write the tables of items and users of a world; return all its events, sorted by time."""
    settings = WorldConfig(
        seed=seed, users=options.users, items=options.items, artists=options.items // 10, days=options.days
    )
    (folder / "source").mkdir(parents=True)
    pq.write_table(world.build_items_table(settings), folder / "source" / "items.parquet")
    pq.write_table(world.build_users_table(settings), folder / "source" / "users.parquet")
    for partition in range(world.n_partitions(settings)):
        world.write_partition(settings, partition, folder / "log", folder / "truth")
    return ds.dataset(folder / "log").to_table().sort_by("time")


def write_config(folder: Path, seed: int, options: argparse.Namespace) -> Config:
    """Write the world's config with tables as its source, without the two-tower model, which takes the longest."""
    text = WORLD.read_text().replace('name = "world"', f'name = "loop_{seed}"')
    text = text.replace('[data]\nformat = "world"\n', SOURCE)
    first = options.days - options.more - options.later  # days of the source tables
    split = f"[split]\nmax_requests = {options.requests}\nranker_days = {first / 5}\n"
    split += f"validation_days = {first / 10}\ntest_days = {first / 10}\n"
    path = folder / "loop.toml"
    path.write_text(f'{text}\n{split}[retrieval]\nsources = "enabled"\n[retrieval.two_tower]\nenabled = false\n')
    return load_config(path)


def list_relevant(events: pa.Table, config: Config) -> dict[str, set[str]]:
    """Return the items of positive weight by user; those that the user also skips stay."""
    liked = [name for name, kind in config.events.types.items() if kind.weight > 0]
    found: dict[str, set[str]] = {}
    kept = events.filter(pc.is_in(events["type"], pa.array(liked)))
    for user, item in zip(kept["user_id"].to_pylist(), kept["item_id"].to_pylist(), strict=True):
        found.setdefault(user, set()).add(item)
    return found


def recommend(config: Config, users: list[str], now: int) -> list[list[str]]:
    """Return the lists of the newest bundle at `now`, as a service makes them."""
    newest = open_bundles(config).list()[-1]
    return replay(open_worker(str(config.source), newest), users, now)


def append(config: Config, events: pa.Table) -> None:
    """Append events to the event store, impressions as slates."""
    shown = pc.equal(events["type"], "impression")
    with closing(open_writer(config)) as writer:
        for rows in split_rows(events.filter(pc.invert(shown))):
            writer.append(rows).result()
        for slates in build_slates(events.filter(shown)):
            writer.append_slates(slates).result()


def split_rows(events: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield events as the store takes them, with times in µs."""
    for batch in with_integer_times(events).to_batches(max_chunksize=BATCH):
        yield [{**row, "sent_time": row["time"]} for row in batch.to_pylist()]


def build_slates(impressions: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield slates, built from the impression events of each recommendation id."""
    slates: dict[str, dict[str, Any]] = {}
    ordered = with_integer_times(impressions.sort_by([("time", "ascending"), ("position", "ascending")]))
    for row in ordered.to_pylist():
        name = row["recommendation_id"]
        about = {"recommendation_id": name, "gateway": "log", "bundle": "", "surface": "home"}
        slate = slates.setdefault(name, {**about, "time": row["time"], "user_id": row["user_id"], "items": []})
        slate["items"].append((row["item_id"], row["propensity"]))
    rows = []
    for number, slate in enumerate(slates.values(), start=1):
        items, propensity = zip(*slate["items"], strict=True)
        shown = {"item_id": items, "propensity": propensity, "score": [None] * len(items), "sources": [[]] * len(items)}
        rows.append({**slate, "sequence": number, "items": json.dumps(shown)})
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def with_integer_times(events: pa.Table) -> pa.Table:
    return events.set_column(events.column_names.index("time"), "time", events["time"].cast(pa.int64()))


def read_origins(config: Config) -> dict[str, int]:
    """Return the counts by origin of the newest bundle's report."""
    store = open_bundles(config)
    data = json.loads((store.local_path(store.list()[-1]) / "report.json").read_text())["data"]
    names = ("source_events", "stored_events", "served_items", "ignored_items_as_negatives")
    return {name: data.get(name, 0) for name in names}


def build_rows(found: LoopScores) -> list[dict[str, Any]]:
    """Build a row per group of users and pair of bundles."""
    values, user = {name: np.concatenate(parts) for name, parts in found.ndcg.items()}, np.concatenate(found.user)
    active, rows = np.concatenate(found.active), []
    for group, where in (("all", np.ones(len(user), bool)), ("active in the days", active), ("others", ~active)):
        for ours, theirs in ((TRAINED, READ), (TRAINED, WITHOUT), (READ, WITHOUT)):
            compared = compare_all({ours: values[ours][where]}, values[theirs][where], user[where])[ours].as_dict()
            means = {"ndcg@10": float(values[ours][where].mean()), "its ndcg@10": float(values[theirs][where].mean())}
            rows.append(
                {
                    "users": group, "n": int(where.sum()), "bundle": ours, "against": theirs, **means,
                    **{key: compared[key] for key in ("difference", "low", "high", "outcome")},
                }
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
