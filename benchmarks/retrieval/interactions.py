"""Interactions and item metadata to fit retrievers on, from the generated world or from a text file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from benchmarks.protocols import datasets
from benchmarks.protocols.attributes import Attributes
from benchmarks.protocols.lines import read_users, sort_ids
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.core.units import HOUR_US
from handsell.data.config import WorldConfig
from handsell.data.interactions import Interactions
from handsell.data.numbering import deduplicate_and_sort, number_events
from handsell.data.readers.base import drop_incomplete, read_all_events
from handsell.data.readers.world import World
from handsell.retrieval.content_vectors import Content, fit_content_vectors

WORLD = Path(__file__).parents[2] / "deployments" / "configs" / "world.toml"
HISTORY = 50  # most recent events of a request


@dataclass(frozen=True)
class Dataset:
    """Interactions, and names, tags and creators of I items (no columns where none are known)."""

    events: Interactions
    names: list[str]
    content: Content | None
    tags: sparse.csr_matrix  # (I, number of tags)
    creators: sparse.csr_matrix  # (I, number of creators)

    @cached_property
    def offsets(self) -> np.ndarray:
        return self.events.user_offsets

    def exclude_users(self, users: np.ndarray) -> Dataset:
        """Return the dataset without the events of these users (n,)."""
        return replace(self, events=self.events.where(~np.isin(self.events.user, users)))

    def liked_items(self, user: int) -> np.ndarray:
        """Distinct items that the user liked, in the order of the first like."""
        rows = slice(self.offsets[user], self.offsets[user + 1])
        items = self.events.item[rows][self.events.weight[rows] > 0]
        return items[np.sort(np.unique(items, return_index=True)[1])]

    def build_requests(self, users: np.ndarray) -> Requests:
        """Build a request for each user (B,), one hour after the last event, with the HISTORY newest events."""
        events, past = self.events, History.empty(len(users), HISTORY)
        time = np.zeros(len(users), np.int64)
        for b, user in enumerate(users):
            end = self.offsets[user + 1]
            rows = slice(max(self.offsets[user], end - HISTORY), end)
            for column in ("item", "type", "time", "weight"):
                getattr(past, column)[b, HISTORY - (rows.stop - rows.start) :] = getattr(events, column)[rows]
            time[b] = events.time[end - 1] + HOUR_US
        return _assemble(users, time, past)

    def build_new_user_requests(self, items: np.ndarray) -> Requests:
        """Build requests of unknown users who liked items (B, n), one per hour, at the end of the log."""
        rows, n = items.shape
        end = int(self.events.time.max()) + HOUR_US
        past = History(
            items.astype(np.int32), np.full((rows, n), self._like_type, np.int8),
            np.tile(end - HOUR_US * np.arange(n, 0, -1), (rows, 1)), np.ones((rows, n), np.float32),
        )  # fmt: skip
        return _assemble(np.full(rows, NONE), np.full(rows, end), past)

    @cached_property
    def _like_type(self) -> int:
        """The most frequent type of events with positive weight."""
        return int(np.bincount(self.events.type[self.events.weight > 0]).argmax())


def _assemble(users: np.ndarray, time: np.ndarray, past: History) -> Requests:
    empty = np.zeros((len(users), 0))
    return Requests(
        user=np.asarray(users, np.int32), time=time, surface=np.zeros(len(users), np.int8), history=past,
        profile=Profile(*(empty.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(len(users)), Ragged.empty(len(users), np.int64)), exclude=Ragged.empty(len(users)),
    )  # fmt: skip


def load_lines(data: Path, attributes: Path | None, size: int) -> Dataset:
    """Load lines of `user item …` without the last item of each; raises DataError if a file is malformed.

    `attributes`: JSON file of item → list of attributes, which become tags and content vectors of `size` dimensions.
    """
    protocol = datasets.read_sequences(data, attributes)
    described: Attributes | None = protocol.attributes
    names = (
        list(described.items) if described else sort_ids({item for line in read_users(data).values() for item in line})
    )
    tags = _matrix(described.tags if described else [[] for _ in names])
    none = sparse.csr_matrix((len(names), 0), dtype=np.float32)
    return Dataset(protocol.final.events, names, described.fit_content(size) if described else None, tags, none)


def generate_world(world: WorldConfig, size: int) -> Dataset:
    """Generate a world with the event weights of deployments/configs/world.toml, without impressions."""
    config, reader = load_config(WORLD), World(world)
    items, users = reader.items(), Vocabulary.of(reader.users()["user_id"].to_pylist())
    ids = Vocabulary.of(items["item_id"].to_pylist())
    log = pa.concat_tables(
        [number_events(drop_incomplete(b), users, ids, config.events) for b in read_all_events(reader)]
    )
    events = Interactions.from_table(deduplicate_and_sort(log.combine_chunks()), len(users), len(ids))
    acted = np.array([kind.seen for kind in config.events.types.values()])[events.type]
    snapshot = _snapshot(ids, items)
    content = fit_content_vectors(snapshot, size, before=NEVER, columns=config.features.item_columns)
    titled = zip(items["title"].to_pylist(), items["creators"].to_pylist(), strict=True)
    names = [f"{title} ({by[0]})" for title, by in titled]
    tags, creators = (_matrix(items[column].to_pylist()) for column in ("tags", "creators"))
    return Dataset(events.where(acted), names, content, tags, creators)


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
