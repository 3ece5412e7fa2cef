"""Search a whole deployment for a person: the event store, every file, the online store, and the source tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.data.numbering import ERASED_USER
from handsell.data.readers.detect import open_reader
from handsell.features.repository import build_feast_settings
from handsell.jobs.erasure.files import count_in_file, count_in_table
from handsell.jobs.erasure.person import Person
from handsell.jobs.erasure.places import describes_items, list_places
from handsell.maintenance.backup import open_snapshot
from handsell.maintenance.store_tables import TABLES

UNREADABLE = (OSError, sqlite3.Error, pa.ArrowInvalid, pa.ArrowKeyError, ValueError, EOFError)


@dataclass(slots=True)
class Place:
    """A place that was searched: how many files or rows, what was found where, and what could not be read."""

    name: str
    unit: str = "files"
    searched: int = 0
    found: int = 0
    where: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    note: str = ""
    counts: bool = True  # False: the place is not the deployment's own, and only reported

    @property
    def is_clean(self) -> bool:
        return not self.counts or not (self.found or self.unreadable)

    def add(self, where: str, found: int) -> None:
        self.searched += 1
        if found:
            self.found += found
            self.where.append(where)

    def describe(self) -> str:
        """Return where the person is, or what cannot be read, in a few words."""
        named = [*self.where[:3], *(f"unreadable: {text}" for text in self.unreadable[:3])]
        return ", ".join(named) or "nothing"


def search(config: Config, person: Person) -> Iterator[Place]:
    """Search every place of the deployment; nothing is changed."""
    yield from _search_store(config, person)
    yield from _search_files(config, person)
    yield _search_numbers(Layout(config.state))
    if redis := _search_redis(config, person):
        yield redis


def search_sources(config: Config, person: Person) -> Place:
    """Count the person's rows in the source tables, which are the user's own and stay as they are."""
    place = Place("source tables", "rows", counts=False)
    place.note = "yours: the data step leaves these rows out; remove them when you can"
    if config.data.format == "world":
        place.note = "the world is synthetic and has no tables"
        return place
    try:
        reader = open_reader(config, lambda _: None)
        for part in reader.parts():
            for batch in reader.events(part):
                place.searched += len(batch)
                place.found += int(np.count_nonzero(person.mark(batch["user_id"])))
        users = reader.users()
        place.searched += len(users)
        place.found += int(np.count_nonzero(person.mark(users["user_id"])))
    except (HandsellError, OSError) as error:
        place.note = f"not readable: {error}"
    return place


def _search_store(config: Config, person: Person) -> Iterator[Place]:
    with open_snapshot(config) as snapshot:
        for table in TABLES if snapshot is not None else ():
            place = Place(f"event store: {table}", "rows")
            columns = [c for c in snapshot.list_columns(table) if c.kind in ("text", "bytes")]  # type: ignore[union-attr]
            for rows in snapshot.read_rows(table, columns) if columns else ():  # type: ignore[union-attr]
                place.searched += len(rows)
                arrays = {
                    c.name: pa.array(values, pa.string() if c.kind == "text" else pa.binary())
                    for c, values in zip(columns, zip(*rows, strict=True), strict=True)
                }
                place.found += count_in_table(pa.table(arrays), person)
            if place.found:
                place.where.append(table)
            yield place


def _search_files(config: Config, person: Person) -> Iterator[Place]:
    layout = Layout(config.state)
    for name, paths in sorted(list_places(config).items()):
        place, items = Place(name), Place(f"{name} (of items)", counts=False, note="an item or creator of this name")
        for path in paths:
            if layout.truth in path.parents:
                continue  # of the synthetic world
            try:
                (items if describes_items(layout, path) else place).add(str(path), _count_in_file(path, layout, person))
            except FileNotFoundError:
                continue  # removed meanwhile
            except UNREADABLE as error:
                place.unreadable.append(f"{path}: {error}")
        yield place
        if items.found:
            yield items


def _count_in_file(path: Path, layout: Layout, person: Person) -> int:
    if path == layout.catalog / "users" / "ids.arrow":
        return int(np.count_nonzero(Vocabulary.load(path.parent).number(person.ids) >= 0))
    if layout.event_keys in path.parents:
        return 0  # hashes, without a text
    return count_in_file(path, person)


def _search_numbers(layout: Layout) -> Place:
    """Count the interactions of numbers whose id was erased."""
    place = Place("interactions of erased numbers")
    if not (layout.catalog / "users" / "ids.arrow").is_file():
        return place
    texts = Vocabulary.load(layout.catalog / "users").texts
    erased = np.flatnonzero(np.asarray(pa.compute.match_substring_regex(texts, ERASED_USER)))
    for path in sorted(layout.interactions.rglob("*.parquet")):
        users = pq.read_table(path, columns=["user"])["user"].to_numpy()
        place.add(str(path), int(np.count_nonzero(np.isin(users, erased))))
    return place


def _search_redis(config: Config, person: Person) -> Place | None:
    """Count the keys of online rows in Redis; a key ends with the length of the id and the id."""
    online = build_feast_settings(config)["online_store"]
    if "connection_string" not in online:
        return None
    import redis

    place = Place("online features in Redis", "keys")
    address, *options = str(online["connection_string"]).split(",")
    host, _, port = address.partition(":")
    settings = dict(option.split("=", 1) for option in options)
    ends = tuple(len(one.encode()).to_bytes(4, "little") + one.encode() for one in person.ids)
    try:
        client = redis.Redis(host, int(port), password=settings.get("password"), ssl=settings.get("ssl") == "true")
        for key in client.scan_iter(count=1_000):
            place.searched += 1
            place.found += any(end in key for end in ends)
    except (redis.RedisError, OSError, ValueError) as error:
        place.unreadable.append(str(error))
    return place
