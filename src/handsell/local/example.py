"""The last step of `make up`: recommendations for one user, with titles, and commands to try."""

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

Description = tuple[str, str, str]  # title, creators, tags


def show_example(config: Config, console: Console) -> str:
    """Print a typical user's history and the slate that the running service returns; return a summary."""
    layout = Layout(config.state)
    snapshot = Snapshot.load(layout.snapshot)
    user_id, history = _typical_user(config, layout, snapshot)
    url = service_url(config)
    response = httpx.get(f"{url}/v1/users/{user_id}/recommendations", params={"count": 10}, timeout=10.0)
    response.raise_for_status()
    body = response.json()
    items = body["items"]
    console.print(_build_table(f"latest events of user {user_id}", history, "event"))
    slate = [
        (_describe_item(snapshot, _number(snapshot, item["item_id"])),
         f"{item['score']:.3f}  {_describe_reason(item, snapshot)}")
        for item in items
    ]  # fmt: skip
    console.print(_build_table(f"recommendations for user {user_id}", slate, "score and reason"))
    console.print(f"\nThe service is at [bold]{url}[/bold]. Try:\n")
    item_id = items[0]["item_id"]
    for line in (
        f"curl {url}/v1/users/{user_id}/recommendations",
        f"curl '{url}/v1/items/{item_id}/similar?count=5'",
        f"curl {url}/v1/recommendations -H 'content-type: application/json' -d "
        f"'{json.dumps(_new_user_request(config, item_id))}'",
    ):
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)
    return f"{len(items)} items for user {user_id}" + (f", degraded: {body['degraded']}" if body["degraded"] else "")


def _typical_user(config: Config, layout: Layout, snapshot: Snapshot) -> tuple[str, list[tuple[Description, str]]]:
    """Return the user of the first part with the median number of positive events, and the latest of these events."""
    part = sorted(layout.interactions.glob("part-*.parquet"))[0]
    table = pq.read_table(part, columns=["user", "item", "type", "time", "weight"])
    table = table.filter(table["weight"].to_numpy() > 0) if table.num_rows else table
    user = table["user"].to_numpy()
    users, counts = np.unique(user, return_counts=True)
    chosen = users[np.argsort(counts, kind="stable")[len(users) // 2]]
    latest = table.filter(user == chosen).sort_by("time").to_pylist()[:-9:-1]
    user_id = Vocabulary.load(layout.catalog / "users").ids(np.array([chosen]))[0]
    names = config.events.names
    return user_id, [(_describe_item(snapshot, row["item"]), names[row["type"]]) for row in latest]


def _number(snapshot: Snapshot, item_id: str) -> int:
    return int(snapshot.items.number([item_id])[0])


def _describe_item(snapshot: Snapshot, item: int) -> Description:
    row = {name: snapshot.metadata[name][item].as_py() for name in ("item_id", "title", "creators", "tags")}
    return row["title"] or row["item_id"], ", ".join(row["creators"] or []), ", ".join((row["tags"] or [])[:4])


def _describe_reason(item: dict, snapshot: Snapshot) -> str:
    reason = item.get("reason") or {}
    if not reason.get("item_id"):
        return reason.get("code", "")
    return f"{reason['code']}: {_describe_item(snapshot, _number(snapshot, reason['item_id']))[0]}"


def _new_user_request(config: Config, item_id: str) -> dict:
    """Build the body of a request for a new user with one event, of the type and value with the highest weight."""

    def highest(name: str) -> tuple[float, float | None]:
        """Highest weight of an event type, and the value that has it."""
        kind = config.events.types[name]
        return max([(weight, value) for value, weight in kind.weight_by_value], default=(kind.weight, None))

    name = max(config.events.types, key=lambda n: highest(n)[0])
    value = highest(name)[1]
    event = {"type": name, "item_id": item_id} | ({} if value is None else {"value": value})
    return {"user_id": "someone-new", "session": {"events": [event]}, "count": 5}


def _build_table(title: str, rows: list[tuple[Description, str]], last: str) -> Table:
    """Build a table of items; the column of creators is left out if no item has one."""
    table = Table(title=title, title_justify="left", expand=False)
    has_creators = any(creators for (_, creators, _), _ in rows)
    for column in ("title", *(["by"] if has_creators else []), "tags", last):
        table.add_column(column, overflow="fold")
    for (item_title, creators, tags), text in rows:
        table.add_row(item_title, *([creators] if has_creators else []), tags, text)
    return table
