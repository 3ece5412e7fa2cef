"""The feature store of a deployment: the only module that uses Feast. Ids are strings, results Arrow arrays or lists.

store = open_store(config)
store.apply()                                    # = feast -c feature_repo apply
store.materialize(end_us)                        # newest offline rows → online store
rows = store.historical_users(user_ids, times)   # training: as of each time
rows = store.online_users(user_ids)              # serving: as of now
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property

# before the other imports of Feast
from handsell.features.feast_import import feast  # isort: skip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.type_map import VALUE_TYPE_TO_PROTO_VALUE_MAP
from feast.utils import _convert_arrow_to_proto
from filelock import Timeout
from google.protobuf.message import DecodeError

from handsell.config import Config
from handsell.core.errors import FeatureError
from handsell.features.repository import (
    ONLINE_BATCH,
    find_feature_repo,
    prepare_feast_environment,
    share_online_file,
)
from handsell.features.storage.changes import find_changes
from handsell.features.storage.encoded_rows import Cells, EncodedRows
from handsell.features.storage.feast_process import run_feast
from handsell.features.storage.registration import UNREGISTERED, FeatureRegistry
from handsell.features.storage.row_writers import RowLock, open_lock, record_batch_write
from handsell.features.storage.user_rows import OnlineViews, open_online_views
from handsell.features.storage.value_encoding import decode_column
from handsell.features.views import CREATED, TIMESTAMP, USER_VIEWS, View

warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)  # ibis, on every query

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ACTIVITY = "user_activity"
ITEM_VIEWS = ("item_profile", "item_activity")
ONLINE_VIEWS = (*USER_VIEWS, *ITEM_VIEWS)
USER_SERVICE = "user_serving_v1"
CHUNK = 20_000  # keys per point-in-time join; bounds memory, because a join holds each key times its earlier rows


def open_store(config: Config) -> FeatureStore:
    return FeatureStore(config)


def open_online_store(config: Config) -> FeatureStore:
    """Return a store for online rows alone, which needs less memory."""
    return FeatureStore(config, is_online_only=True)


class FeatureStore(FeatureRegistry):
    """Feast for one config: same project, registry and online store as the `feast` command."""

    def apply(self) -> str:
        """Register entities, views and services as the `feast` command does; returns its output."""
        repo = find_feature_repo(self.config)
        self._require_registry()
        done = run_feast(("-c", str(repo), "apply"), prepare_feast_environment(self.config))
        if done.returncode:
            raise FeatureError(f"`feast -c {repo} apply` failed with status {done.returncode}:\n{done.stderr.strip()}")
        share_online_file(self.config)
        self.refresh()
        return done.stdout

    def _require_registry(self) -> None:
        """Raise FeatureError if the file of the registry is damaged; a missing one is fine."""
        path = self.layout.feast / "registry.db"
        try:
            Registry.FromString(path.read_bytes() if path.is_file() else b"")
        except DecodeError:
            raise FeatureError(f"{path} is damaged: remove it, then run `handsell up` again") from None

    def refresh(self) -> None:
        """Read the registry again; another process may have run apply."""
        try:
            self.feast.refresh_registry()
        except (FileNotFoundError, DecodeError):
            raise FeatureError(f"{self._registered} does not exist or is damaged: run {self._apply_command}") from None
        self.__dict__.pop("_user_columns", None)

    # -- offline: training ------------------------------------------------------------------------------

    def historical_users(self, user_ids: Sequence[str], times_us: np.ndarray) -> dict[str, pa.Array]:
        """Read the user's row as of each (user_id, time µs): column → one value per input, in input order.

        Null if there was no row yet. Rows count if both their timestamp and `created` are at or before the time; of
        rows with the same timestamp, the last created one is used.
        """
        return self._historical(USER_VIEWS, user_ids, times_us)

    def historical_items(self, item_ids: Sequence[str], day_us: np.ndarray) -> dict[str, pa.Array]:
        """Read item profile and activity as of the start of a UTC day (µs), likewise."""
        return self._historical(ITEM_VIEWS, item_ids, day_us)

    def _historical(self, names: Sequence[str], ids: Sequence[str], times_us: np.ndarray) -> dict[str, pa.Array]:
        key = self.views[names[0]].keys[0]
        columns = [f"{name}:{column}" for name in names for column in self.views[name].names]
        for name in names:
            self._require_files(name)
        if names == ITEM_VIEWS:
            times_us = self._find_changes(names, ids, times_us)
        keys, inverse = _unique(key, ids, times_us)
        parts = [self._join(columns, keys.iloc[at : at + CHUNK]) for at in range(0, len(keys), CHUNK)]
        if not parts:
            return {name: pa.nulls(0, kind) for view in names for name, kind in self.views[view].columns}
        table = pa.concat_tables(parts).take(pa.array(inverse))
        if len(table) != len(ids):
            raise FeatureError(f"expected {len(ids)} rows of {', '.join(names)}, got {len(table)}: report this bug")
        return {
            name: table.column(name).combine_chunks().cast(kind)
            for view in names
            for name, kind in self.views[view].columns
        }

    def _find_changes(self, names: Sequence[str], ids: Sequence[str], times_us: np.ndarray) -> np.ndarray:
        """Return for each (id, time) the time of the last change of its rows until then, (B,) µs.

        The join gives the same for both, and fewer of these are distinct: items have values for each day, but change
        on few. A view whose rows expire keeps its times.
        """
        if any(self._feast_view(name).ttl for name in names):
            return times_us
        files = [file for name in names for file in sorted((self.layout.features / name).glob("*.parquet"))]
        return find_changes(files, self.views[names[0]].keys[0], ids, times_us)

    def _join(self, columns: list[str], keys: pd.DataFrame) -> pa.Table:
        """Point-in-time rows for unique keys, in their order: DuckDB answers in any order, `row` restores it."""
        try:
            job = self.feast.get_historical_features(
                entity_df=keys.assign(row=np.arange(len(keys))), features=columns, filter_by_created_timestamp=True
            )
            table = job.to_arrow()
        except UNREGISTERED as error:
            raise FeatureError(f"{self._registered} lacks a view: {error}. Run {self._apply_command}") from None
        row = table.column("row").to_numpy()
        if len(row) != len(keys) or len(np.unique(row)) != len(row):
            raise FeatureError(f"{len(keys)} unique keys gave {len(row)} rows in a point-in-time join: report this bug")
        return table.take(pa.array(np.argsort(row)))

    def _require_files(self, name: str) -> None:
        folder = self.layout.features / name
        first = next(folder.glob("*.parquet"), None)
        if first is None:
            raise FeatureError(f"view {name} has no Parquet file in {folder}: run handsell features CONFIG first")
        missing = set(self.views[name].schema.names) - set(pq.read_schema(first).names)
        if missing:
            raise FeatureError(f"{first} lacks columns {', '.join(sorted(missing))}: run handsell features CONFIG")

    # -- online: serving --------------------------------------------------------------------------------

    def materialize(self, end_us: int | None = None, names: Sequence[str] = ONLINE_VIEWS) -> dict[str, int]:
        """Write each key's newest row at or before `end_us` (default: now) to the online store.

        Returns the number of rows per view. The values and conversions are those of `feast materialize`; the interval
        is recorded in the registry.
        """
        end = datetime.now(UTC) if end_us is None else EPOCH + timedelta(microseconds=int(end_us))
        share_online_file(self.config)
        for name in names:
            self._require_files(name)
        users = [name for name in names if name in USER_VIEWS]
        users.sort(key=lambda name: name != ACTIVITY)  # its offsets are recorded before any row is written
        with self.lock, self._online.transaction():
            written = {name: self._materialize_view(name, end) for name in users}
        written |= {name: self._materialize_view(name, end) for name in names if name not in users}
        for name in names:
            self.feast.registry.apply_materialization(self._feast_view(name), self.feast.project, EPOCH, end)
        return written

    def _materialize_view(self, name: str, end: datetime) -> int:
        view = self._feast_view(name)
        table = self._newest(self.views[name], view, end)
        if name == ACTIVITY:
            record_batch_write(self.config, pc.min(table["log_offset"]).as_py() or 0)
        for batch in table.to_batches(max_chunksize=ONLINE_BATCH):
            self.feast.provider.online_write_batch(self.feast.config, view, self._encode(view, batch), None)
        return len(table)

    @cached_property
    def lock(self) -> RowLock:
        """Held while rows of users are written: by `materialize`, the stream processor and erasure, in turn."""
        return open_lock(self.config)

    def write_user_rows(self, rows: Mapping[str, pa.Table]) -> None:
        """Overwrite online rows: view name → table in that view's schema, one row per user; all views or none."""
        tables = [(self._feast_view(name), table) for name, table in rows.items()]
        with self.lock:
            self._online.write(tables)

    def forget_users(self, user_ids: Sequence[str], wait_s: float = -1) -> None:
        """Delete the online rows of users, with all their views.

        Raises FeatureError if another process writes rows for longer than `wait_s`; a negative value waits for it.
        """
        views = [self._feast_view(name) for name in USER_VIEWS]
        try:
            with self.lock.acquire(timeout=wait_s):
                self._online.delete(views, user_ids)
        except Timeout:
            raise FeatureError(f"online rows of {self.config.name} are being written: try again later") from None

    def online_users(self, user_ids: Sequence[str]) -> EncodedRows:
        """Read the user's current row: column → one value per input; None if there is none."""
        views, fields = self._user_columns
        return EncodedRows(self._read(views, user_ids), fields, decode_column)

    def online_users_at_once(self, user_ids: Sequence[str]) -> EncodedRows | None:
        """`online_users` where the rows are in a file of this machine that no other process holds; else None."""
        views, fields = self._user_columns
        cells = self._online.read_at_once(views, user_ids)
        return None if cells is None else EncodedRows(cells, fields, decode_column)

    @cached_property
    def _user_columns(self) -> tuple[list[feast.FeatureView], dict[str, str]]:
        """The views of the user service, and the field of Value by column, read from the registry once."""
        projections = self._service(USER_SERVICE).feature_view_projections
        features = (feature for projection in projections for feature in projection.features)
        fields = {f.name: VALUE_TYPE_TO_PROTO_VALUE_MAP[f.dtype.to_value_type()] for f in features}
        return [self._feast_view(projection.name) for projection in projections], fields

    def _read(self, views: Sequence[feast.FeatureView], user_ids: Sequence[str]) -> Cells:
        try:
            return self._online.read(views, user_ids)
        except sqlite3.Error as error:
            self._close_online()
            raise FeatureError(f"online store of {self.config.name}: {error}. Run {self._apply_command}") from error

    def _close_online(self) -> None:
        """Close the connection, so that the next read opens the file again, which may have been replaced."""
        self._online.close()
        connection = vars(self.feast.provider.online_store).pop("_conn", None)  # Feast opens another where it lacks one
        if connection is not None:
            connection.close()

    @cached_property
    def _online(self) -> OnlineViews:
        return open_online_views(self.feast.provider.online_store, self.feast.config)

    @staticmethod
    def _encode(view: feast.FeatureView, batch: pa.RecordBatch) -> list:
        types = {field.name: field.dtype.to_value_type() for field in view.entity_columns}
        return _convert_arrow_to_proto(batch, view, types)

    def _newest(self, view: View, registered: feast.FeatureView, end: datetime) -> pa.Table:
        assert registered.batch_source is not None
        job = self.feast.provider.offline_store.pull_latest_from_table_or_query(
            config=self.feast.config,
            data_source=registered.batch_source,
            join_key_columns=list(view.keys),
            feature_name_columns=[feature.name for feature in registered.features],
            timestamp_field=TIMESTAMP,
            created_timestamp_column=CREATED,
            start_date=EPOCH,
            end_date=end,
        )
        return job.to_arrow()


def _unique(key: str, ids: Sequence[str], times_us: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Unique (id, time) as Feast's entity rows, sorted, and the (B,) row of each input among them."""
    codes, names = pd.factorize(np.asarray(ids, object), sort=True)
    pairs, inverse = np.unique(np.stack([codes, np.asarray(times_us, np.int64)], 1), axis=0, return_inverse=True)
    stamps = pd.to_datetime(pairs[:, 1].astype("datetime64[us]"), utc=True)
    return pd.DataFrame({key: names[pairs[:, 0]], TIMESTAMP: stamps}), inverse.reshape(-1)
