"""A user's online rows of all views, read and written as one: no reader sees, and no crash leaves, a part of them.

The bytes are those of Feast, which reads and writes one view at a time and converts one cell at a time. With SQLite all
views of a call share a transaction; with Redis all views of a user are fields of one hash, which one command reads and
one MULTI writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

# before the other imports of Feast
from handsell.features.feast_import import feast  # isort: skip

import pyarrow as pa
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import adapt_datetime_epoch
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp

from handsell.features.storage.encoded_rows import Cells
from handsell.features.storage.value_encoding import encode_column, read_scalars
from handsell.features.views import CREATED, TIMESTAMP

EPOCH = datetime(1970, 1, 1)  # without a zone, as Feast has it
STAMPS = (TIMESTAMP, CREATED)
UPSERT = (
    "INSERT INTO {table} (entity_key, feature_name, value, value_text, event_ts, created_ts) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, value_text = excluded.value_text, "
    "event_ts = excluded.event_ts, created_ts = excluded.created_ts"
)
KEYS = 10_000  # users whose keys are kept: those of one visit
REDIS_RETRIES = 1  # at once, over a new connection: the server may have closed the old one

Tables = Sequence[tuple[feast.FeatureView, pa.Table]]


class OnlineViews(Protocol):
    """Rows of several views in the online store."""

    def read(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells:
        """Read the cells of all columns of the views, as of one moment."""
        ...

    def read_at_once(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells | None:
        """`read` a file of this machine, without waiting for another process; None where that is not possible."""
        ...

    def write(self, tables: Tables) -> None:
        """Overwrite the rows of all views, or none."""
        ...

    def delete(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> None:
        """Delete the rows of some users from all views."""
        ...

    def close(self) -> None:
        """Close what Feast does not know of."""
        ...

    def transaction(self) -> Any:
        """A context in which the engine commits all writes of Feast together, if it can."""
        ...


def open_online_views(store: Any, config: RepoConfig) -> OnlineViews:
    """Wrap Feast's online store by its engine."""
    return RedisViews(store, config) if hasattr(store, "_client") else SqliteViews(store, config)


def encode_users(user_ids: Sequence[str], config: RepoConfig) -> list[bytes]:
    """Return Feast's keys of users."""
    version = config.entity_key_serialization_version
    return [_encode_user(user_id, version) for user_id in user_ids]


@lru_cache(KEYS)
def _encode_user(user_id: str, version: int) -> bytes:
    return serialize_entity_key(EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)]), version)


class _JoinedConnection:
    """A connection whose `with` blocks join a transaction that is open already."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def __enter__(self) -> _JoinedConnection:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class SqliteViews:
    """All reads of a call in one statement, all writes in one transaction."""

    def __init__(self, store: Any, config: RepoConfig):
        self._store, self._config = store, config
        self._impatient: sqlite3.Connection | None = None  # does not wait for other processes
        self._plan: tuple[Sequence[feast.FeatureView], str, list[str]] | None = None  # statement and columns of views

    def read(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells:
        return self._select(self._store._get_conn(self._config), views, user_ids)

    def read_at_once(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells | None:
        try:
            if self._impatient is None:
                path = f"{Path(self._store._get_db_path(self._config)).as_uri()}?mode=rw"  # never creates the file
                self._impatient = sqlite3.connect(path, timeout=0, uri=True, check_same_thread=False)
            return self._select(self._impatient, views, user_ids)
        except sqlite3.Error:
            self.close()
            return None

    def close(self) -> None:
        """Close the connection of `read_at_once`; the next one opens the file again, which may have been replaced."""
        connection, self._impatient = self._impatient, None
        if connection is not None:
            connection.close()

    def _select(self, connection: Any, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells:
        if len(user_ids) == 1:
            return self._select_one(connection, views, user_ids[0])
        distinct = {user_id: row for row, user_id in enumerate(dict.fromkeys(user_ids))}
        rows = {key: row for row, key in enumerate(encode_users(list(distinct), self._config))}
        cells: Cells = {feature.name: [None] * len(rows) for view in views for feature in view.features}
        marks = ",".join(f"?{place}" for place in range(1, len(rows) + 1))
        sql = self._build_select(views, "entity_key, feature_name, value", f"entity_key IN ({marks})")
        for key, name, value in connection.execute(sql, list(rows)):
            if name in cells:  # a column that the view had before stays in the table
                cells[name][rows[key]] = value
        if len(rows) == len(user_ids):
            return cells
        place = [distinct[user_id] for user_id in user_ids]
        return {name: [column[row] for row in place] for name, column in cells.items()}

    def _select_one(self, connection: Any, views: Sequence[feast.FeatureView], user_id: str) -> Cells:
        """Select the cells of one user, for whom the plan of the views is kept: it takes longer than the rows."""
        if self._plan is None or self._plan[0] is not views:
            names = [feature.name for view in views for feature in view.features]
            self._plan = views, self._build_select(views, "feature_name, value", "entity_key = ?1"), names
        _, sql, names = self._plan
        found = dict(connection.execute(sql, encode_users([user_id], self._config)))
        return {name: [found.get(name)] for name in names}

    def _build_select(self, views: Sequence[feast.FeatureView], columns: str, where: str) -> str:
        return " UNION ALL ".join(f"SELECT {columns} FROM {self._table(view)} WHERE {where}" for view in views)

    def write(self, tables: Tables) -> None:
        with self.transaction() as connection:
            seconds = _Memo(_adapt_time)
            for view, table in tables:
                connection.executemany(UPSERT.format(table=self._table(view)), self._list_cells(view, table, seconds))

    def _list_cells(self, view: feast.FeatureView, table: pa.Table, seconds: _Memo) -> list[tuple]:
        """Return the rows of the view's SQLite table; those of a user follow each other, as in the file."""
        keys = encode_users(table["user_id"].to_pylist(), self._config)
        times = [[seconds[time] for time in _read_times(table[name])] for name in STAMPS]
        columns = []
        for feature in view.features:
            column = table[feature.name].combine_chunks()
            names = [feature.name] * len(keys)
            columns.append(zip(keys, names, encode_column(column), _describe(column), *times, strict=True))
        return [cell for row in zip(*columns, strict=True) for cell in row]

    def delete(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> None:
        keys = [(key,) for key in encode_users(user_ids, self._config)]
        with self.transaction() as connection:
            for view in views:
                connection.executemany(f"DELETE FROM {self._table(view)} WHERE entity_key = ?", keys)

    def _table(self, view: feast.FeatureView) -> str:
        return '"' + f"{self._config.project}_{view.name}".replace('"', '""') + '"'

    def transaction(self) -> Any:
        return self._begin("IMMEDIATE")

    @contextmanager
    def _begin(self, kind: str) -> Iterator[Any]:
        connection = self._store._get_conn(self._config)
        if isinstance(connection, _JoinedConnection):
            yield connection
            return
        connection.execute(f"BEGIN {kind}")
        self._store._conn = _JoinedConnection(connection)
        try:
            yield connection
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        finally:
            self._store._conn = connection


class RedisViews:
    """One hash per user: HMGET reads all views, MULTI writes them."""

    def __init__(self, store: Any, config: RepoConfig):
        self._store, self._config = store, config

    def read(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells:
        self._client  # noqa: B018 - prepares the client that Feast uses
        names = [feature.name for view in views for feature in view.features]
        fields = [field for view in views for field in self._list_fields(view)]
        hashes = self._store._read_hash_fields(self._config, [(key, fields) for key in self._keys(user_ids)])
        columns = zip(*hashes, strict=True) if hashes else [()] * len(names)
        return {name: list(cells) for name, cells in zip(names, columns, strict=True)}

    def read_at_once(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells | None:
        return None  # a server

    def close(self) -> None:
        return

    def write(self, tables: Tables) -> None:
        stamps = _Memo(_encode_time)
        with self._client.pipeline(transaction=True) as pipeline:
            for view, table in tables:
                columns = [encode_column(table[feature.name].combine_chunks()) for feature in view.features]
                times = [stamps[time] for time in _read_times(table[TIMESTAMP])]
                names = [*self._list_fields(view), f"_ts:{view.name}"]
                for key, *cells in zip(self._keys(table["user_id"].to_pylist()), *columns, times, strict=True):
                    pipeline.hset(key, mapping=dict(zip(names, cells, strict=True)))
            pipeline.execute()

    def delete(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> None:
        if user_ids:
            self._client.delete(*self._keys(user_ids))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes of many users do not fit into one command: each batch of a view is written apart."""
        yield

    def _keys(self, user_ids: Sequence[str]) -> list[bytes]:
        return [key + self._config.project.encode() for key in encode_users(user_ids, self._config)]

    def _list_fields(self, view: feast.FeatureView) -> list[Any]:
        """Return the fields of a hash that hold a view's columns."""
        return self._store._generate_hset_keys_for_features(view)[1][:-1]  # the last one is the time

    @cached_property
    def _client(self) -> Any:
        """Feast's client. By itself it would try again for seconds while the server is away, and hold a thread."""
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = self._store._get_client(self._config.online_store)
        client.set_retry(Retry(NoBackoff(), REDIS_RETRIES))
        return client


def _describe(column: pa.Array) -> list[str | None]:
    """Return the texts (N,) that Feast stores beside encoded values in SQLite, None for lists."""
    if pa.types.is_list(column.type):
        return [None] * len(column)
    return [None if cell is None else str(cell) for cell in read_scalars(column)]


class _Memo(dict[int, Any]):
    """Results of a function by its argument; the views of a user have the same times."""

    def __init__(self, convert: Callable[[int], Any]):
        self._convert = convert

    def __missing__(self, time_us: int) -> Any:
        self[time_us] = converted = self._convert(time_us)
        return converted


def _read_times(column: pa.ChunkedArray) -> list[int]:
    return column.cast(pa.int64()).to_numpy().tolist()


def _adapt_time(time_us: int) -> int:
    """Return a time as Feast stores it in SQLite."""
    return adapt_datetime_epoch(EPOCH + timedelta(microseconds=time_us))


def _encode_time(time_us: int) -> bytes:
    """Return a time as Feast stores it in Redis."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000).SerializeToString()
