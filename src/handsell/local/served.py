"""`handsell evaluate CONFIG --served`: query the running service, and compare it with an offline replay of its bundle.

Both must return the same lists for the same users at the same time. With held-out items, the lists are also scored, and
the replay is repeated as if each user had been away for a minute, a day … half a year.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from handsell.bundles.local_bundle import LocalBundle
from handsell.bundles.opening import open_bundles
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.clock import Clock
from handsell.core.errors import DataError, HandsellError
from handsell.core.funnel import run_local
from handsell.core.hashing import uniform
from handsell.evaluation.intervals import estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.served import PAUSES
from handsell.events.store.opening import open_reader
from handsell.jobs.batch.batch_worker import look_up_requests, open_worker
from handsell.local.bundles import resolve_bundle
from handsell.local.service import open_client, request_slate, service_url

COUNT = 10
BATCH = 64  # users replayed at a time
THREADS = 4
SERVICE, REPLAY = "service, now", "replay, now"
MIN_EQUAL = 0.99  # share of equal lists below which service and replay disagree
Lists = list[list[str]]


@dataclass(frozen=True)
class ServiceLists:
    """The lists that the service returned, one for each user, with the number of degraded and cold-start responses."""

    lists: Lists
    bundle: str
    degraded: int
    cold: int


def evaluate_served(
    config: Config, held_out: Path | None, users: int, url: str, console: Console | None = None
) -> bool:
    """Print the comparison; return whether at least MIN_EQUAL of the lists of service and replay are equal.

    Raises HandsellError if the service does not answer or serves another bundle than the live one, and DataError for an
    unusable file of held-out items.
    """
    console = console or Console()
    relevant = None if held_out is None else read_held_out(held_out)
    url, is_local = url or service_url(config), not url
    store = open_bundles(config)
    live = resolve_bundle(store, "live")
    worker = open_worker(str(config.source), live)
    known = worker.users.ids(np.arange(len(worker.users))) if relevant is None else sorted(relevant)
    ids = _sample(known, users)
    served = query_service(url, ids, is_local)
    if served.bundle != live:
        raise HandsellError(
            f"{url} serves bundle {served.bundle}, but {live} is live: wait until the service has switched, or promote "
            "the bundle to evaluate"
        )
    now = Clock.of(config.serving.clock, store.show(live)).now()
    lists = {SERVICE: served.lists, REPLAY: replay(worker, ids, now)}
    if relevant is not None:
        lists |= {f"replay, {name} away": replay(worker, ids, now, pause) for name, pause in PAUSES.items()}
        console.print(_build_table(lists, [relevant[user] for user in ids], worker.stages.snapshot))
    equal = sum(a == b for a, b in zip(lists[SERVICE], lists[REPLAY], strict=True))
    for line in _summarize(served, equal, len(ids)):
        console.print(line, soft_wrap=True, highlight=False)
    return equal >= MIN_EQUAL * len(ids)


def read_held_out(path: Path) -> dict[str, set[str]]:
    """Read user id → item ids from CSV or Parquet; raises DataError naming what is missing."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            text = pa_csv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
            table = pa_csv.read_csv(path, convert_options=text)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"expected CSV or Parquet with held-out items in {path}, cannot read it: {error}") from None
    if missing := [name for name in ("user_id", "item_id") if name not in table.column_names]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: expected columns user_id and item_id, got "
            f"{', '.join(table.column_names)}"
        )
    held_out: dict[str, set[str]] = {}
    for user, item in zip(*(table[name].cast(pa.string()).to_pylist() for name in ("user_id", "item_id")), strict=True):
        held_out.setdefault(user, set()).add(item)
    if not held_out:
        raise DataError(f"{path} has no rows: expected at least one pair of user_id and item_id")
    return held_out


def query_service(url: str, ids: Sequence[str], is_local: bool = False) -> ServiceLists:
    """Request recommendations for each user; raises HandsellError if a response is missing or not a slate."""
    with open_client(url, 30.0, is_local) as client, ThreadPoolExecutor(THREADS) as pool:
        bodies = list(pool.map(lambda user_id: request_slate(client, user_id, COUNT), ids))
    bundles = sorted({body["release"]["bundle"] for body in bodies})
    if len(bundles) != 1:
        raise HandsellError(f"{url} served several bundles ({', '.join(bundles)}): wait until it has switched to one")
    lists = [[item["item_id"] for item in body["items"]] for body in bodies]
    return ServiceLists(
        lists, bundles[0], sum(bool(b["degraded"]) for b in bodies), sum(b["cold_start"] for b in bodies)
    )


def replay(worker: LocalBundle, ids: Sequence[str], now: int, away: int | None = None) -> Lists:
    """Return the bundle's lists for users at `now` µs, computed in this process.

    `away` µs, if given, moves each request to that time after the user's last event.
    """
    lists: Lists = []
    items = worker.stages.snapshot.items
    reader = open_reader(worker.config)
    try:
        for start in range(0, len(ids), BATCH):
            batch = list(ids[start : start + BATCH])
            requests = look_up_requests(worker, "home", now, batch, reader, away)
            slates = run_local(worker.stages.funnel.recommend(requests, COUNT)).item
            lists += [items.ids(row[row != NONE]) if (row != NONE).any() else [] for row in slates]
    finally:
        reader.close()
    return lists


def _sample(ids: Sequence[str], most: int) -> list[str]:
    """Return at most this many of the ids, the same ones each time."""
    order = np.argsort(uniform(0, np.arange(len(ids))), kind="stable")[:most]
    return [ids[i] for i in np.sort(order)]


def _build_table(lists: dict[str, Lists], held_out: list[set[str]], snapshot: Snapshot) -> Table:
    """Score the lists against each user's held-out items; one row for each way of making the lists."""
    relevant, number = _number_items(held_out, snapshot)
    users = np.arange(len(held_out))
    scores = {}
    recalls = {}
    for name, of_users in lists.items():
        items = np.full((len(of_users), COUNT), NONE, np.int32)
        for b, row in enumerate(of_users):
            items[b, : len(row)] = [number[item] for item in row] if row else []
        gain = gains(items, relevant)
        scores[name], recalls[name] = ndcg(gain, relevant, COUNT), recall(gain, relevant, COUNT)
    table = Table(title=f"held-out items of {len(held_out):,} users", title_justify="left")
    for column in ("lists", "NDCG@10", "95 % interval", "recall@10", "items shown"):
        table.add_column(column, justify="left" if column == "lists" else "right")
    for name, mean in estimate_means(scores, users).items():
        shown = len({item for row in lists[name] for item in row})
        table.add_row(
            name, f"{mean.mean:.4f}", f"{mean.low:.4f}–{mean.high:.4f}", f"{np.mean(recalls[name]):.4f}", f"{shown:,}"
        )
    return table


def _number_items(held_out: list[set[str]], snapshot: Snapshot) -> tuple[Relevant, dict[str, int]]:
    """Return the held-out items as numbers, and item id → number for the whole catalog.

    Held-out items that the catalog does not contain get numbers beyond it.
    """
    ids = sorted({item for row in held_out for item in row})
    known = snapshot.items.number(ids)
    beyond = len(snapshot) + np.arange(len(ids))
    numbers = dict(zip(ids, np.where(known == NONE, beyond, known).tolist(), strict=True))
    rows = Ragged.from_rows([sorted(numbers[item] for item in row) for row in held_out])
    catalog = snapshot.items.ids(np.arange(len(snapshot)))
    return Relevant(rows, Ragged(np.ones(len(rows.values), np.float32), rows.offsets)), {
        item: number for number, item in enumerate(catalog)
    }


def _summarize(served: ServiceLists, equal: int, users: int) -> list[str]:
    lines = [
        f"{equal:,} of {users:,} lists of the service equal the replay of bundle {served.bundle} at the same time."
    ]
    if equal < MIN_EQUAL * users:
        lines.append(
            "More lists differ than the time between the two explains: check for business rules or a changed config."
        )
    if served.degraded:
        lines.append(f"{served.degraded:,} responses were degraded: see /metrics for the stage.")
    if served.cold:
        lines.append(f"{served.cold:,} users were a cold start.")
    return lines
