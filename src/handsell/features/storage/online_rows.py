"""Feature rows of users, read from the online store for the requests of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from handsell.config import Config
from handsell.features.views import USER_VIEWS, build_views

FORGET_WAIT_S = 0.2  # reads wait meanwhile


class UserStore(Protocol):
    def online_users(self, user_ids: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """Column → one cell per user, None where there is no row."""
        ...

    def forget_users(self, user_ids: Sequence[str], wait_s: float = -1) -> None:
        """Remove the rows of users; raises FeatureError if others write rows for longer than `wait_s`."""
        ...


class OnlineRows:
    """Feature rows of users from the online store."""

    def __init__(self, store: UserStore, config: Config):
        every = build_views(config)
        self._store, self._columns = store, tuple(name for view in USER_VIEWS for name in every[view].names)

    def empty(self, n: int) -> dict[str, list[Any]]:
        """Return the rows of n unknown users."""
        return {name: [None] * n for name in self._columns}

    def read(self, user_ids: Sequence[str | None]) -> dict[str, list[Any]]:
        """Read one row per user in one call of the store; users without an id get an empty row."""
        ids = list(dict.fromkeys(user_id for user_id in user_ids if user_id is not None))
        rows = self.empty(len(user_ids))
        if not ids:
            return rows
        place = {user_id: i for i, user_id in enumerate(ids)}
        at = [None if user_id is None else place[user_id] for user_id in user_ids]
        found = self._store.online_users(ids)
        return rows | {name: [None if i is None else cells[i] for i in at] for name, cells in found.items()}

    def forget(self, user_ids: Sequence[str]) -> None:
        """Remove the rows of users; where others write now, the stream processor does it within seconds."""
        self._store.forget_users(user_ids, FORGET_WAIT_S)
