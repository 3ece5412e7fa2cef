"""Feature rows of users, read from the online store for the requests of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from handsell.config import Config
from handsell.features.storage.encoded_rows import EncodedRows
from handsell.features.views import USER_VIEWS, build_views

FORGET_WAIT_S = 0.2  # reads wait meanwhile


ReadRows = Callable[[Sequence[str]], Mapping[str, Sequence[Any]] | None]


class UserStore(Protocol):
    def online_users(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Column → one cell per user, None where there is no row."""
        ...

    def forget_users(self, user_ids: Sequence[str], wait_s: float = -1) -> None:
        """Remove the rows of users; raises FeatureError if others write rows for longer than `wait_s`."""
        ...


@runtime_checkable
class LocalUserStore(UserStore, Protocol):
    def online_users_at_once(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[Any]] | None:
        """`online_users` where the rows are in a file of this machine that no other process holds; else None."""
        ...


def take_rows(rows: Mapping[str, Any], places: Sequence[int | None]) -> Mapping[str, Any]:
    """Return the rows at places (P,), an empty one for None."""
    if isinstance(rows, EncodedRows):
        return rows.take(places)
    return {name: [None if place is None else cells[place] for place in places] for name, cells in rows.items()}


class OnlineRows:
    """Feature rows of users from the online store."""

    def __init__(self, store: UserStore, config: Config):
        every = build_views(config)
        self._store, self._columns = store, {name: None for view in USER_VIEWS for name in every[view].names}
        self._read_at_once = store.online_users_at_once if isinstance(store, LocalUserStore) else None

    def empty(self, n: int) -> Mapping[str, list[Any]]:
        """Return the rows of n unknown users."""
        return {name: [None] * n for name in self._columns}

    def read(self, user_ids: Sequence[str | None]) -> Mapping[str, Sequence[Any]]:
        """Read one row per user in one call of the store; users without an id get an empty row."""
        rows = self._read(user_ids, self._store.online_users)
        assert rows is not None
        return rows

    def read_at_once(self, user_ids: Sequence[str | None]) -> Mapping[str, Sequence[Any]] | None:
        """`read` without waiting; None where the store cannot."""
        return None if self._read_at_once is None else self._read(user_ids, self._read_at_once)

    def _read(self, user_ids: Sequence[str | None], read: ReadRows) -> Mapping[str, Sequence[Any]] | None:
        ids = list(dict.fromkeys(user_id for user_id in user_ids if user_id is not None))
        if not ids:
            return self.empty(len(user_ids))
        found = read(ids)
        if found is None:
            return None
        if len(ids) != len(user_ids):
            place = {user_id: i for i, user_id in enumerate(ids)}
            found = take_rows(found, [None if user_id is None else place[user_id] for user_id in user_ids])
        if isinstance(found, EncodedRows) and found.has(self._columns.keys()):
            return found
        return {**self.empty(len(user_ids)), **found}

    def forget(self, user_ids: Sequence[str]) -> None:
        """Remove the rows of users; where others write now, the stream processor does it within seconds."""
        self._store.forget_users(user_ids, FORGET_WAIT_S)
