"""Print one user's history and slate with titles, the address, and commands to try."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.local.service import service_url


def show_example(config: Config, console: Console) -> str:
    """Ask the running service for a user with a middling history; prints, and returns a summary."""
    layout = Layout(config.state)
    snapshot = Snapshot.load(layout.snapshot)
    user_id, history = _typical_user(config, layout, snapshot)
    base = service_url(config)
    answer = httpx.get(f"{base}/v1/users/{user_id}/recommendations", params={"count": 10}, timeout=10.0)
    answer.raise_for_status()
    body = answer.json()
    console.print(_table(f"what {user_id} did last", [(*_names(snapshot, i), kind) for i, kind in history], "event"))
    slate = [
        (*_names(snapshot, int(snapshot.items.number([item["item_id"]])[0])),
         f"{item['score']:.3f}  {_reason(item, snapshot)}")
        for item in body["items"]
    ]  # fmt: skip
    console.print(_table(f"handsell for {user_id}", slate, "score and reason"))
    item_id = body["items"][0]["item_id"]
    console.print(f"\nThe service is at [bold]{base}[/bold]. Try:\n")
    for line in (
        f"curl {base}/v1/users/{user_id}/recommendations",
        f"curl '{base}/v1/items/{item_id}/similar?count=5'",
        f"curl {base}/v1/recommendations -H 'content-type: application/json' -d "
        f"'{json.dumps(_newcomer(config, item_id))}'",
    ):  # fmt: skip
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    return f"{len(body['items'])} items for {user_id}" + (f", degraded: {body['degraded']}" if body["degraded"] else "")


def _typical_user(config: Config, layout: Layout, snapshot: Snapshot) -> tuple[str, list[tuple[int, str]]]:
    """The user of the first part with the median number of positive events, and the last of those."""
    part = sorted(layout.interactions.glob("part-*.parquet"))[0]
    table = pq.read_table(part, columns=["user", "item", "type", "time", "weight"])
    table = table.filter(table["weight"].to_numpy() > 0) if table.num_rows else table
    user = table["user"].to_numpy()
    users, counts = np.unique(user, return_counts=True)
    chosen = users[np.argsort(counts, kind="stable")[len(users) // 2]]
    mine = table.filter(user == chosen).sort_by("time").to_pylist()[-8:]
    names = config.events.names
    user_id = Vocabulary.load(layout.catalog / "users").ids(np.array([chosen]))[0]
    return user_id, [(row["item"], names[row["type"]]) for row in reversed(mine)]


def _names(snapshot: Snapshot, item: int) -> tuple[str, str, str]:
    row = {name: snapshot.metadata[name][item].as_py() for name in ("item_id", "title", "creators", "tags")}
    return row["title"] or row["item_id"], ", ".join(row["creators"] or []), ", ".join((row["tags"] or [])[:4])


def _reason(item: dict, snapshot: Snapshot) -> str:
    reason = item.get("reason") or {}
    about = reason.get("item_id")
    if not about:
        return reason.get("code", "")
    return f"{reason['code']}: {_names(snapshot, int(snapshot.items.number([about])[0]))[0]}"


def _newcomer(config: Config, item_id: str) -> dict:
    """A request of somebody unknown who has just shown that they love one item."""

    def best(name: str) -> tuple[float, float | None]:
        kind = config.events.types[name]
        return max([(weight, value) for value, weight in kind.weight_by_value], default=(kind.weight, None))

    name = max(config.events.types, key=lambda n: best(n)[0])
    value = best(name)[1]
    event = {"type": name, "item_id": item_id} | ({} if value is None else {"value": value})
    return {"user_id": "someone-new", "session": {"events": [event]}, "count": 5}


def _table(title: str, rows: list[tuple[str, str, str, str]], last: str) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    by = any(row[1] for row in rows)
    for column in ("title", *(["by"] if by else []), "tags", last):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(row if by else (row[0], *row[2:])))
    return table
