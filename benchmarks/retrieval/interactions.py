"""Interactions to fit retrievers on, with what is known of the items: the generated world, or a file of lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from benchmarks.protocols import datasets
from benchmarks.protocols.attributes import Attributes
from benchmarks.protocols.lines import in_order, read_users
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.core.units import HOUR_US
from handsell.data.config import WorldConfig
from handsell.data.interactions import Interactions
from handsell.data.numbering import number, settle
from handsell.data.readers.base import all_events, complete
from handsell.data.readers.world import World
from handsell.retrieval.content_vectors import Content, fit_content_vectors

WORLD = Path(__file__).parents[2] / "deployments" / "configs" / "world.toml"
HISTORY = 50  # most recent events of a request


@dataclass(frozen=True)
class Shop:
    """What happened, and I items by number: their names, tags and creators (no columns where none are known)."""

    events: Interactions
    names: list[str]
    content: Content | None
    tags: sparse.csr_matrix  # (I, number of tags)
    creators: sparse.csr_matrix  # (I, number of creators)

    @cached_property
    def offsets(self) -> np.ndarray:
        return self.events.user_offsets

    def without(self, users: np.ndarray) -> Shop:
        """The same, but nothing is known of these users (n,)."""
        return replace(self, events=self.events.where(~np.isin(self.events.user, users)))

    def liked(self, user: int) -> np.ndarray:
        """Distinct items that the user liked, in the order of their first like."""
        rows = slice(self.offsets[user], self.offsets[user + 1])
        items = self.events.item[rows][self.events.weight[rows] > 0]
        return items[np.sort(np.unique(items, return_index=True)[1])]

    def requests(self, users: np.ndarray) -> Requests:
        """(B,) users an hour after the last event of each, with the HISTORY newest events of each."""
        events, past = self.events, History.empty(len(users), HISTORY)
        time = np.zeros(len(users), np.int64)
        for b, user in enumerate(users):
            end = self.offsets[user + 1]
            rows = slice(max(self.offsets[user], end - HISTORY), end)
            for column in ("item", "type", "time", "weight"):
                getattr(past, column)[b, HISTORY - (rows.stop - rows.start) :] = getattr(events, column)[rows]
            time[b] = events.time[end - 1] + HOUR_US
        return _asked(users, time, past)

    def newcomers(self, items: np.ndarray) -> Requests:
        """Unknown users who have just liked items (B, n), an hour between them, at the end of the log."""
        rows, n = items.shape
        end = int(self.events.time.max()) + HOUR_US
        past = History(
            items.astype(np.int32), np.full((rows, n), self._like, np.int8),
            np.tile(end - HOUR_US * np.arange(n, 0, -1), (rows, 1)), np.ones((rows, n), np.float32),
        )  # fmt: skip
        return _asked(np.full(rows, NONE), np.full(rows, end), past)

    @cached_property
    def _like(self) -> int:
        """The commonest type among events of positive weight."""
        return int(np.bincount(self.events.type[self.events.weight > 0]).argmax())


def _asked(users: np.ndarray, time: np.ndarray, past: History) -> Requests:
    nothing = np.zeros((len(users), 0))
    return Requests(
        user=np.asarray(users, np.int32), time=time, surface=np.zeros(len(users), np.int8), history=past,
        profile=Profile(*(nothing.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(len(users)), Ragged.empty(len(users), np.int64)), exclude=Ragged.empty(len(users)),
    )  # fmt: skip


def from_lines(data: Path, attributes: Path | None, size: int) -> Shop:
    """Lines `user item …`, without their last items; raises DataError as the protocols do.

    `attributes`: JSON of item → list of attributes, which become tags; content vectors of `size` dimensions.
    """
    yard = datasets.sequences(data, attributes)
    known: Attributes | None = yard.attributes
    names = list(known.items) if known else in_order({item for line in read_users(data).values() for item in line})
    tags = _matrix(known.tags if known else [[] for _ in names])
    none = sparse.csr_matrix((len(names), 0), dtype=np.float32)
    return Shop(yard.final.events, names, known.content(size) if known else None, tags, none)


def from_world(world: WorldConfig, size: int) -> Shop:
    """A generated world with the event weights of deployments/configs/world.toml, without impressions."""
    config, reader = load_config(WORLD), World(world)
    items, users = reader.items(), Vocabulary.of(reader.users()["user_id"].to_pylist())
    ids = Vocabulary.of(items["item_id"].to_pylist())
    log = pa.concat_tables([number(complete(b), users, ids, config.events) for b in all_events(reader)])
    events = Interactions.from_table(settle(log.combine_chunks()), len(users), len(ids))
    acted = np.array([kind.seen for kind in config.events.types.values()])[events.type]
    snapshot = _snapshot(ids, items)
    content = fit_content_vectors(snapshot, size, before=NEVER, columns=config.features.item_columns)
    titled = zip(items["title"].to_pylist(), items["creators"].to_pylist(), strict=True)
    names = [f"{title} ({by[0]})" for title, by in titled]
    tags, creators = (_matrix(items[column].to_pylist()) for column in ("tags", "creators"))
    return Shop(events.where(acted), names, content, tags, creators)


def _snapshot(ids: Vocabulary, items: pa.Table) -> Snapshot:
    count, lists = len(ids), {name: items[name].to_pylist() for name in ("creators", "tags")}
    creators, tags = (Vocabulary.of(value for row in lists[name] for value in row) for name in lists)
    return Snapshot(
        version=0, as_of=0, items=ids, creators=creators, tags=tags,
        creator=creators.number([row[0] for row in lists["creators"]]),
        item_tags=Ragged.from_rows([tags.number(row) for row in lists["tags"]]),
        published=np.full(count, ALWAYS), expires=np.full(count, NEVER), available=np.ones(count, bool),
        values=np.zeros((count, 0), np.float32), value_names=(), metadata=items,
    )  # fmt: skip


def _matrix(rows) -> sparse.csr_matrix:
    """(I, number of values) float32, 1 where item i has the value."""
    values = Vocabulary.of(value for row in rows for value in row)
    found = Ragged.from_rows([values.number(row) for row in rows])
    ones = np.ones(len(found.values), np.float32)
    return sparse.csr_matrix((ones, found.values, found.offsets), shape=(len(found), len(values)))
