"""Split data sets into the tables of a deployment: train, test, items, and a TOML file.

A split holds out the last likes (films), the last item (Beauty), the next basket (Ta-Feng) or the last days (world) of
each user. With `development`, the train part is split again and the test part is dropped, so that settings can be
chosen without it.
"""

from __future__ import annotations

import csv
import json
import re
import tomllib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from handsell.core.errors import DataError
from handsell.data.config import WorldConfig
from handsell.data.readers.world import World

Event = tuple  # user_id, item_id, time, type, and the values of Cut.more
CONFIG = "served.toml"
COLUMNS = ("user_id", "item_id", "time", "type")
LIKES, LEAST_LIKES = 3, 8  # held out per user; likes that a user needs at least
MINUTE, DAY, WORLD_DAYS = 60, 86_400, 3  # two in seconds, and the days of the world that are held out
END = 1_577_880_000  # noon, 2020-01-01: the last slot of logs without a clock
WORLD_MORE = ("value", "surface", "recommendation_id", "position", "propensity")


@dataclass(frozen=True)
class Cut:
    """Tables of a deployment; `items` begins with its header, `more` names further columns of train."""

    train: list[Event]
    test: dict[str, set[str]]
    items: list[Sequence[Any]] | None = None
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """How to split and configure a data set; `users` is the default number of test users (None: all)."""

    cut: Callable[[Path, bool], Cut]
    types: str  # TOML of [events.types]
    split: str  # TOML of [split]
    repeat: str = "exclude"
    more: str = ""  # further sections
    users: int | None = None


def hold_out_likes(events: Iterable[Event]) -> Cut:
    """Hold out the last likes of users with enough likes; later events of such users are dropped."""
    ordered = sorted(events, key=lambda event: (event[2], event[0], event[1]))
    liked = defaultdict(list)
    for user, item, time, kind in ordered:
        if kind == "like":
            liked[user].append((time, item))
    last = {user: likes[-LIKES:] for user, likes in liked.items() if len(likes) >= LEAST_LIKES}
    test = {user: {item for _, item in likes} for user, likes in last.items()}
    train = [e for e in ordered if e[0] not in test or (e[2] < last[e[0]][0][0] and e[1] not in test[e[0]])]
    return Cut(train, test)


def hold_out_baskets(
    histories: dict[str, list[list[str]]], least: int, slot: int, kind: str, development: bool = False
) -> Cut:
    """Hold out the last basket of users with at least `least`; the rest are `slot` seconds apart and end at END."""
    test: dict[str, set[str]] = {}
    for _ in range(1 + development):
        test = {user: set(baskets[-1]) for user, baskets in histories.items() if len(baskets) >= least}
        histories = {user: baskets[:-1] if user in test else baskets for user, baskets in histories.items()}
    train = [
        (user, item, END - back * slot + place * MINUTE, kind)
        for user, baskets in histories.items()
        for back, basket in enumerate(reversed(baskets))
        for place, item in enumerate(basket)
    ]
    train.sort(key=lambda event: event[2])
    return Cut(train, test)


def hold_out_from(events: Iterable[Event], start: int, weights: dict[str, float]) -> Cut:
    """Hold out events from `start` on: the items of each user whose weights sum to more than 0."""
    train, totals = [], defaultdict[tuple[str, str], float](float)
    for event in sorted(events, key=lambda event: event[2]):
        if event[2] < start:
            train.append(event)
        else:
            totals[event[:2]] += weights[event[3]]
    test = defaultdict[str, set[str]](set)
    for user, item in (pair for pair, total in totals.items() if total > 0):
        test[user].add(item)
    return Cut(train, dict(test))


def _cut_films(read: Callable[[Path], tuple[list[Event], list]], root: Path, development: bool) -> Cut:
    events, items = read(root)
    cut = hold_out_likes(events)
    return replace(hold_out_likes(cut.train) if development else cut, items=items)


def _read_ml_100k(root: Path) -> tuple[list[Event], list]:
    events = [_rated(*line.split("\t")) for line in _lines(root / "ml-100k" / "ml-100k.inter")[1:]]
    items: list[Sequence[Any]] = [("item_id", "title", "tags", "year")]
    for line in _lines(root / "ml-100k" / "ml-100k.item")[1:]:
        item, title, year, genres = [*line.split("\t"), "", "", ""][:4]
        items.append((f"i{item}", title, "|".join(genres.split()), year))
    return events, items


def _read_ml_latest(root: Path) -> tuple[list[Event], list]:
    events = [_rated(*row) for row in csv.reader(_lines(root / "ml-latest-small" / "ratings.csv")[1:])]
    items: list[Sequence[Any]] = [("item_id", "title", "tags", "year")]
    for item, title, genres in csv.reader(_lines(root / "ml-latest-small" / "movies.csv")[1:]):
        found = re.fullmatch(r"(.*?)\s*\((\d{4})\S*\)\s*", title)
        tags = "" if genres.startswith("(") else genres
        items.append((f"i{item}", found[1] if found else title, tags, found[2] if found else ""))
    return events, items


def _rated(user: str, item: str, stars: str, time: str) -> Event:
    kind = "like" if float(stars) >= 4 else "dislike" if float(stars) <= 2 else "seen"
    return f"u{user}", f"i{item}", int(float(time)), kind


def _cut_beauty(root: Path, development: bool) -> Cut:
    lines = [line.split() for line in _lines(root / "amazon-beauty" / "Beauty.txt")]
    histories = {f"u{user}": [[f"i{item}"] for item in items] for user, *items in lines}
    cut = hold_out_baskets(histories, 5, DAY, "click", development)
    tags = json.loads(_text(root / "amazon-beauty" / "Beauty_item2attributes.json"))
    rows = [(f"i{item}", "|".join(f"a{attribute}" for attribute in found)) for item, found in tags.items()]
    return replace(cut, items=[("item_id", "tags"), *rows])


def _cut_ta_feng(root: Path, development: bool) -> Cut:
    history, future = (json.loads(_text(root / "ta-feng" / f"tafeng_{part}.json")) for part in ("history", "future"))
    histories = {
        f"u{user}": [[f"i{item}" for item in basket] for basket in (*baskets, *future[user]) if basket != [-1]]
        for user, baskets in history.items()
    }
    return hold_out_baskets(histories, 2, 7 * DAY, "purchase", development)


def _cut_world(_: Path, development: bool) -> Cut:
    """Split the synthetic world; items that are published after train ends are left out."""
    source = World(WorldConfig())
    step = WORLD_DAYS * DAY * 1_000_000
    start = int(datetime.fromisoformat(source.world.end).timestamp() * 1_000_000) - step
    weights = {kind: about["weight"] for kind, about in tomllib.loads(WORLD_TYPES).items()}
    cut = hold_out_from(_world_events(source), start, weights)
    if development:
        start -= step
        cut = hold_out_from(cut.train, start, weights)
    items = source.items().drop_columns(["expires_at", "available"])  # empty in the world
    rows = (row for row in items.to_pylist() if row["published_at"].timestamp() * 1_000_000 < start)
    return replace(cut, items=[items.column_names, *(list(map(_cell, row.values())) for row in rows)], more=WORLD_MORE)


def _world_events(source: World) -> Iterable[Event]:
    for part in source.parts():
        for batch in source.events(part):
            columns = [batch[name] for name in (*COLUMNS, *WORLD_MORE)]
            columns[2] = columns[2].cast("int64")
            yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _cell(value: Any) -> Any:
    return "|".join(value) if isinstance(value, list) else value.isoformat() if isinstance(value, datetime) else value


FILM_TYPES = "like = { weight = 1.0 }\nseen = { weight = 0.0 }\ndislike = { weight = -1.0 }"
WORLD_TYPES = """impression = { weight = 0.0, seen = false }
listen = { weight = 1.0 }
skip = { weight = -0.5 }
like = { weight = 2.0 }
save = { weight = 3.0 }
share = { weight = 3.0 }"""
WORLD_FEATURES = '[features]\nitem_columns = ["energy", "acousticness", "tempo"]\n\n'
LAST_K, BY_TIME = 'kind = "leave_last_k"', 'kind = "by_time"'
FEW = f"{LAST_K}\nranker_k = 2\nvalidation_k = 1\ntest_k = 1"  # most users of Beauty have four to eight clicks
WEEKS = f"{BY_TIME}\nranker_days = 14\nvalidation_days = 7\ntest_days = 3.5"  # cuts fall between weekly baskets
SETS = {
    "ml-100k": DataSet(partial(_cut_films, _read_ml_100k), FILM_TYPES, LAST_K),
    "ml-latest-small": DataSet(partial(_cut_films, _read_ml_latest), FILM_TYPES, LAST_K),
    "beauty": DataSet(_cut_beauty, "click = { weight = 1.0 }", FEW),
    "ta-feng": DataSet(_cut_ta_feng, "purchase = { weight = 1.0 }", WEEKS, "allow", users=4_000),
    "world": DataSet(_cut_world, WORLD_TYPES, BY_TIME, "allow", WORLD_FEATURES),
}


def find_set(name: str) -> DataSet:
    """Find the data set of that name; raises DataError where there is none."""
    if name not in SETS:
        raise DataError(f"expected a data set among {', '.join(SETS)}, got {name!r}; correct the name")
    return SETS[name]


def write_tables(name: str, root: Path, folder: Path, development: bool = False, users: int | None = None) -> Path:
    """Write a set's tables and config to a folder; return the path of the config. A hash selects `users` (0: all)."""
    chosen = find_set(name)
    cut = chosen.cut(root, development)
    known = sorted({event[0] for event in cut.train} & cut.test.keys(), key=lambda user: zlib.crc32(user.encode()))
    tested = sorted(known[: (chosen.users if users is None else users) or None])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "train.csv", [(*COLUMNS, *cut.more), *cut.train])
    _write(folder / "test.csv", [COLUMNS[:2], *((user, item) for user in tested for item in sorted(cut.test[user]))])
    if cut.items:
        _write(folder / "items.csv", cut.items)
    path = folder / CONFIG
    path.write_text(build_config(name, chosen, bool(cut.items)), "utf-8")
    return path


def build_config(name: str, chosen: DataSet, items: bool) -> str:
    """Build the TOML of a deployment on the tables of a set, with or without a table of items."""
    about = '[data.tables.items]\npath = "items.csv"\nlist_separator = "|"\n\n' if items else ""
    return (
        f'name = "served_{name.replace("-", "_")}"\n\n[data]\nformat = "tables"\n\n'
        f'[data.tables.events]\npath = "train.csv"\n\n{about}[events.types]\n{chosen.types}\n\n'
        f'[split]\n{chosen.split}\n\n{chosen.more}[surfaces.home]\nrepeat = "{chosen.repeat}"\n\n'
        '[surfaces.similar]\nrepeat = "allow"\n\n[serving]\nclock = "data"\n'
    )


def _write(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    return require(path, "set HANDSELL_TEST_DATA to the folder of the data sets").read_text("utf-8", errors="replace")


def require(path: Path, todo: str = "write the tables with `python -m benchmarks served_quality --cut`") -> Path:
    """Return the path of an existing file; raises DataError, with `todo`, if it does not exist."""
    if not path.is_file():
        raise DataError(f"{path} does not exist: {todo}")
    return path
