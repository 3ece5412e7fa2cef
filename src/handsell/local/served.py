"""`handsell evaluate CONFIG --served`: ask the running service, and compare with an offline replay of its bundle.

Both must give the same lists for the same users at the same time. Where held-out items are given, the lists are scored
as well, and the replay is asked again as if each user had been away for a minute, a day … half a year.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.clock import Clock
from handsell.core.errors import DataError, HandsellError
from handsell.core.funnel import run_local
from handsell.core.hashing import uniform
from handsell.core.paths import Layout
from handsell.evaluation.intervals import estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.served import PAUSES
from handsell.events.reader import EventReader
from handsell.jobs.batch.slate_part import BatchWorker, look_up_requests, open_worker
from handsell.local.bundles import open_bundles
from handsell.local.service import service_url

COUNT = 10
AT_ONCE = 64  # users of one replay
THREADS = 4
AS_SERVED, REPLAYED = "service, now", "replay, now"
SAME_SHARE = 0.99  # of the lists; below, the service and the replay disagree
Lists = list[list[str]]


@dataclass(frozen=True)
class Answers:
    """What the service said: one list a user, and what went wrong on the way."""

    lists: Lists
    bundle: str
    degraded: int
    cold: int


def evaluate_served(
    config: Config, held_out: Path | None, users: int, url: str, console: Console | None = None
) -> bool:
    """Print the comparison; returns whether service and replay agree on at least SAME_SHARE of the lists."""
    console = console or Console()
    wanted = None if held_out is None else read_held_out(held_out)
    base = url or service_url(config)
    here_bundle = _live(config)
    here = open_worker(str(config.source), here_bundle)
    ids = _some(here.users.ids(np.arange(len(here.users))) if wanted is None else sorted(wanted), users)
    answers = ask_service(base, ids)
    if answers.bundle != here_bundle:
        raise HandsellError(
            f"{base} serves bundle {answers.bundle}, the live one is {here_bundle}: wait until it has turned, or "
            "promote the one that is meant"
        )
    now = Clock.of(config.serving.clock, open_bundles(config).show(here_bundle)).now()
    lists = {AS_SERVED: answers.lists, REPLAYED: replay(here, ids, now)}
    if wanted is not None:
        lists |= {f"replay, {name} away": replay(here, ids, now, away) for name, away in PAUSES.items()}
        console.print(_scored(lists, [wanted[user] for user in ids], here.stages.snapshot))
    same = sum(a == b for a, b in zip(lists[AS_SERVED], lists[REPLAYED], strict=True))
    for line in _sentences(answers, same, len(ids)):
        console.print(line, soft_wrap=True, highlight=False)
    return same >= SAME_SHARE * len(ids)


def read_held_out(path: Path) -> dict[str, set[str]]:
    """User id → item ids; raises DataError naming what is missing."""
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            text = pa_csv.ConvertOptions(column_types={"user_id": pa.string(), "item_id": pa.string()})
            table = pa_csv.read_csv(path, convert_options=text)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"held-out items in {path} cannot be read: {error}; expected CSV or Parquet") from None
    if missing := [name for name in ("user_id", "item_id") if name not in table.column_names]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: expected columns user_id and item_id, got "
            f"{', '.join(table.column_names)}"
        )
    found: dict[str, set[str]] = {}
    for user, item in zip(*(table[name].cast(pa.string()).to_pylist() for name in ("user_id", "item_id")), strict=True):
        found.setdefault(user, set()).add(item)
    if not found:
        raise DataError(f"{path} has no rows: expected at least one pair of user_id and item_id")
    return found


def ask_service(base: str, ids: Sequence[str]) -> Answers:
    """One GET a user; raises HandsellError where the service does not answer, or with anything but a slate."""
    with httpx.Client(base_url=base, timeout=30.0, trust_env=False) as client, ThreadPoolExecutor(THREADS) as pool:

        def one(user_id: str) -> dict:
            try:
                answer = client.get(f"/v1/users/{quote(user_id, safe='')}/recommendations", params={"count": COUNT})
            except httpx.HTTPError as error:
                raise HandsellError(f"no service answers at {base} ({error!r}): start it with `make up`") from None
            if answer.status_code != 200:
                raise HandsellError(f"{base} answered {answer.status_code} for user {user_id}: {answer.text[:300]}")
            return answer.json()

        said = list(pool.map(one, ids))
    bundles = sorted({answer["release"]["bundle"] for answer in said})
    if len(bundles) != 1:
        raise HandsellError(f"{base} answered with bundles {', '.join(bundles)}: ask again when it serves one")
    lists = [[item["item_id"] for item in answer["items"]] for answer in said]
    return Answers(lists, bundles[0], sum(bool(a["degraded"]) for a in said), sum(a["cold_start"] for a in said))


def replay(here: BatchWorker, ids: Sequence[str], now: int, away: int | None = None) -> Lists:
    """The bundle's own lists for users at `now` µs, in this process; `away` µs as in `requests_from_rows`."""
    found: Lists = []
    reader = EventReader(Layout(here.config.state).event_log)
    try:
        for start in range(0, len(ids), AT_ONCE):
            some = list(ids[start : start + AT_ONCE])
            requests = look_up_requests(here, "home", now, some, reader, away)
            items = run_local(here.stages.funnel.recommend(requests, COUNT)).item
            found += [here.stages.snapshot.items.ids(row[row != NONE]) if (row != NONE).any() else [] for row in items]
    finally:
        reader.close()
    return found


def _live(config: Config) -> str:
    live = open_bundles(config).live()
    if live is None:
        raise HandsellError(f"no bundle of {config.name} is live: `make up CONFIG={config.source}` trains one")
    return live


def _some(ids: Sequence[str], most: int) -> list[str]:
    """At most so many of them, the same ones each time."""
    place = np.argsort(uniform(0, np.arange(len(ids))), kind="stable")[:most]
    return [ids[i] for i in np.sort(place)]


def _scored(lists: dict[str, Lists], wanted: list[set[str]], snapshot: Snapshot) -> Table:
    relevant, number = _relevant(wanted, snapshot)
    users = np.arange(len(wanted))
    scores = {}
    recalls = {}
    for name, found in lists.items():
        items = np.full((len(found), COUNT), NONE, np.int32)
        for b, row in enumerate(found):
            items[b, : len(row)] = [number[item] for item in row] if row else []
        gain = gains(items, relevant)
        scores[name], recalls[name] = ndcg(gain, relevant, COUNT), recall(gain, relevant, COUNT)
    table = Table(title=f"held-out items of {len(wanted):,} users", title_justify="left")
    for column in ("asked", "NDCG@10", "95 % interval", "recall@10", "items shown"):
        table.add_column(column, justify="left" if column == "asked" else "right")
    for name, mean in estimate_means(scores, users).items():
        shown = len({item for row in lists[name] for item in row})
        table.add_row(
            name, f"{mean.mean:.4f}", f"{mean.low:.4f}–{mean.high:.4f}", f"{np.mean(recalls[name]):.4f}", f"{shown:,}"
        )
    return table


def _relevant(wanted: list[set[str]], snapshot: Snapshot) -> tuple[Relevant, dict[str, int]]:
    """Held-out items as numbers, those that the catalog does not know beyond it; and the number of every id."""
    every = sorted({item for row in wanted for item in row})
    known = snapshot.items.number(every)
    beyond = len(snapshot) + np.arange(len(every))
    of = dict(zip(every, np.where(known == NONE, beyond, known).tolist(), strict=True))
    rows = Ragged.from_rows([sorted(of[item] for item in row) for row in wanted])
    catalog = snapshot.items.ids(np.arange(len(snapshot)))
    number = {item: n for n, item in enumerate(catalog)}
    return Relevant(rows, Ragged(np.ones(len(rows.values), np.float32), rows.offsets)), number


def _sentences(answers: Answers, same: int, asked: int) -> list[str]:
    said = [f"{same:,} of {asked:,} lists of the service equal the replay of bundle {answers.bundle} at the same time."]
    if same < SAME_SHARE * asked:
        said.append(
            "They differ more than a clock that went on explains: business rules, or another config, may be why."
        )
    if answers.degraded:
        said.append(f"{answers.degraded:,} answers were degraded: see /metrics for the stage.")
    if answers.cold:
        said.append(f"{answers.cold:,} users were a cold start.")
    return said
