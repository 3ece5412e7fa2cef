"""The last step of `make up`: recommendations for one user, with titles, and commands to try."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.data.interaction_parts import list_parts, read_part
from handsell.local.service import console_url, open_client, request_slate, service_url

Description = tuple[str, str, str]  # title, creators, tags
NEW_USER = "someone-new"
MAX_TAGS = 4  # shown of an item


def show_example(config: Config, console: Console) -> str:
    """Print a typical user's history and the slate that the running service returns; return a summary.

    Ids, titles and tags are printed as they are, without markup. Raises HandsellError if the service does not answer.
    """
    layout = Layout(config.state)
    snapshot = Snapshot.load(layout.snapshot)
    user_id, history = _typical_user(config, layout, snapshot)
    url = service_url(config)
    with open_client(url, is_local=True) as client:
        body = request_slate(client, user_id, 10)
    items = body["items"]
    if config.console.enabled:
        address = f"{console_url(config)}/explore?{urlencode({'user': user_id})}"
        console.print(
            "Open the console: what this user gets, and why", Text(f"  {address}\n"), sep="\n", soft_wrap=True
        )
    console.print(_build_table(f"latest events of user {user_id}", history, "event"))
    slate = [
        (_describe_item(snapshot, item["item_id"]), f"{item['score']:.3f}  {_describe_reason(item, snapshot)}")
        for item in items
    ]
    if slate:
        console.print(_build_table(f"recommendations for user {user_id}", slate, "score and reason"))
    console.print(f"\nThe service is at [bold]{url}[/bold]. Try:\n")
    for command in _list_commands(config, url, user_id, items[0]["item_id"] if items else None):
        console.print(Text(f"  {command}"), soft_wrap=True)
    return f"{len(items)} items for user {user_id}" + (f", degraded: {body['degraded']}" if body["degraded"] else "")


def _list_commands(config: Config, url: str, user_id: str, item_id: str | None) -> list[str]:
    """Return curl commands for a shell; ids are percent-encoded in paths, and every argument is quoted."""
    commands = [["curl", f"{url}/v1/users/{quote(user_id, safe='')}/recommendations"]]
    if item_id is not None:
        body = json.dumps(_new_user_request(config, item_id))
        commands += [
            ["curl", f"{url}/v1/items/{quote(item_id, safe='')}/similar?count=5"],
            ["curl", f"{url}/v1/recommendations", "-H", "content-type: application/json", "-d", body],
        ]
    return [shlex.join(command) for command in commands]


def _typical_user(config: Config, layout: Layout, snapshot: Snapshot) -> tuple[str, list[tuple[Description, str]]]:
    """Return the user of a part with the median number of positive events, and the latest of these events.

    The part is the first one with positive events. Without any, the user is new and has no events.
    """
    for part in list_parts(layout.interactions):
        table = read_part(part, ("user", "item", "type", "time", "weight"))
        table = table.filter(pc.greater(table["weight"], 0))
        if table.num_rows:
            break
    else:
        return NEW_USER, []
    user = table["user"].to_numpy()
    users, counts = np.unique(user, return_counts=True)
    chosen = users[np.argsort(counts, kind="stable")[len(users) // 2]]
    latest = table.filter(user == chosen).sort_by("time").to_pylist()[:-9:-1]
    user_id = Vocabulary.load(layout.catalog / "users").ids(np.array([chosen]))[0]
    item_ids = snapshot.items.ids(np.array([row["item"] for row in latest]))
    names = config.events.names
    return user_id, [
        (_describe_item(snapshot, item_id), names[row["type"]]) for item_id, row in zip(item_ids, latest, strict=True)
    ]


def _describe_item(snapshot: Snapshot, item_id: str) -> Description:
    """Return an item's title, creators and tags; the id is the title of an item without one."""
    item = int(snapshot.items.number([item_id])[0])
    if item == NONE:  # of a newer snapshot
        return item_id, "", ""
    title, creators, tags = (_read_value(snapshot, name, item) for name in ("title", "creators", "tags"))
    return str(title or item_id), _join_texts(creators), _join_texts(tags, MAX_TAGS)


def _read_value(snapshot: Snapshot, name: str, item: int) -> Any:
    return snapshot.metadata[name][item].as_py() if name in snapshot.metadata.column_names else None


def _join_texts(values: Sequence[Any] | None, most: int | None = None) -> str:
    return ", ".join([str(value) for value in values or () if value is not None][:most])


def _describe_reason(item: dict, snapshot: Snapshot) -> str:
    reason = item.get("reason") or {}
    if not reason.get("item_id"):
        return reason.get("code", "")
    return f"{reason['code']}: {_describe_item(snapshot, reason['item_id'])[0]}"


def _new_user_request(config: Config, item_id: str) -> dict:
    """Build the body of a request for a new user with one event, of the type and value with the highest weight."""

    def highest(name: str) -> tuple[float, float | None]:
        """Highest weight of an event type, and the value that has it."""
        kind = config.events.types[name]
        return max([(weight, value) for value, weight in kind.weight_by_value], default=(kind.weight, None))

    name = max(config.events.types, key=lambda n: highest(n)[0])
    value = highest(name)[1]
    event = {"type": name, "item_id": item_id} | ({} if value is None else {"value": value})
    return {"user_id": NEW_USER, "session": {"events": [event]}, "count": 5}


def _build_table(title: str, rows: list[tuple[Description, str]], last: str) -> Table:
    """Build a table of items; the column of creators is left out if no item has one."""
    table = Table(title=Text(title), title_justify="left", expand=False)
    has_creators = any(creators for (_, creators, _), _ in rows)
    for column in ("title", *(["by"] if has_creators else []), "tags", last):
        table.add_column(column, overflow="fold")
    for (item_title, creators, tags), text in rows:
        cells = (item_title, *([creators] if has_creators else []), tags, text)
        table.add_row(*map(Text, cells))
    return table
