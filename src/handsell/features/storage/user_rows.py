"""A user's online rows of all views, read and written as one: no reader sees, and no crash leaves, a part of them.

Feast reads and writes one view at a time. With SQLite the calls for all views share a transaction; with Redis all views
of a user are fields of one hash, which one command reads and one MULTI writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

# before the other imports of Feast
from handsell.features.feast_import import feast  # isort: skip

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

Row = tuple[Any, dict[str, Value] | None]  # time and values, None where there is no row
Batch = tuple[feast.FeatureView, list[tuple[EntityKey, dict[str, Value], Any, Any]]]


class OnlineViews(Protocol):
    """Rows of several views in the online store."""

    def read(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> list[list[Row]]:
        """Read the rows (view, key) as of one moment."""
        ...

    def write(self, batches: Sequence[Batch]) -> None:
        """Overwrite the rows of all views, or none."""
        ...

    def delete(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> None:
        """Delete the rows of some users from all views."""
        ...

    def transaction(self) -> Any:
        """A context in which the engine commits all writes together, if it can."""
        ...


def open_online_views(store: Any, config: RepoConfig) -> OnlineViews:
    """Wrap Feast's online store by its engine."""
    return RedisViews(store, config) if hasattr(store, "_client") else SqliteViews(store, config)


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
    """All reads or writes of a call in one transaction."""

    def __init__(self, store: Any, config: RepoConfig):
        self._store, self._config = store, config

    def read(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> list[list[Row]]:
        with self._begin("DEFERRED"):
            return [self._store.online_read(self._config, view, keys) for view in views]

    def write(self, batches: Sequence[Batch]) -> None:
        with self.transaction():
            for view, rows in batches:
                self._store.online_write_batch(self._config, view, rows, None)

    def delete(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> None:
        version = self._config.entity_key_serialization_version
        serialized = [(serialize_entity_key(key, version),) for key in keys]
        with self.transaction() as connection:
            for view in views:
                table = f"{self._config.project}_{view.name}".replace('"', '""')
                connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', serialized)

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


class _JoinedClient:
    """A client whose pipelines are one, which is executed by its owner."""

    def __init__(self, pipeline: Any):
        self._pipeline = pipeline

    def pipeline(self, transaction: bool = False) -> _JoinedClient:
        return self

    def __enter__(self) -> _JoinedClient:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


class RedisViews:
    """One hash per user: HMGET reads all views, MULTI writes them."""

    def __init__(self, store: Any, config: RepoConfig):
        self._store, self._config = store, config

    def read(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> list[list[Row]]:
        plans = [(view.name, *self._store._generate_hset_keys_for_features(view)) for view in views]
        fields = [field for _, _, own in plans for field in own]
        hashes = self._store._generate_redis_keys_for_entities(self._config, keys)
        values = self._store._read_hash_fields(self._config, [(key, fields) for key in hashes])
        rows, begin = [], 0
        for name, features, own in plans:
            part = [cells[begin : begin + len(own)] for cells in values]
            rows.append(self._store._convert_redis_values_to_protobuf(part, name, features))
            begin += len(own)
        return rows

    def write(self, batches: Sequence[Batch]) -> None:
        client = self._client
        with client.pipeline(transaction=True) as pipeline:
            self._store._client = _JoinedClient(pipeline)
            try:
                for view, rows in batches:
                    self._store.online_write_batch(self._config, view, rows, None)
            finally:
                self._store._client = client
            pipeline.execute()

    def delete(self, views: Sequence[feast.FeatureView], keys: list[EntityKey]) -> None:
        if keys:
            self._client.delete(*self._store._generate_redis_keys_for_entities(self._config, keys))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Writes of many users do not fit into one command: each batch of a view is written apart."""
        yield

    @property
    def _client(self) -> Any:
        return self._store._get_client(self._config.online_store)
