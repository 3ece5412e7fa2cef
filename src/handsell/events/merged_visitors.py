"""Visitors who became users: whose their requests and events are, and by which id their arms are assigned."""

from __future__ import annotations

from collections.abc import Callable

from handsell.events.store.interface import EventReader, Identity

ANONYMOUS = "anonymous:"  # prefix of the user id of a visitor without an account
PAGE = 10_000  # identities in one read


class MergedVisitors:
    """The user of each merged visitor."""

    def __init__(self) -> None:
        self._owners: dict[str, Identity] = {}  # by visitor
        self._first: dict[str, Identity] = {}  # by user, the visitor merged first

    @classmethod
    def read(cls, reader: EventReader) -> MergedVisitors:
        """Read all merges of an event store."""
        found, after = cls(), 0
        while page := reader.read_identities(after, PAGE):
            for identity in page:
                found.add(identity)
            after = page[-1].offset
        return found

    def find_user(self, user_id: str | None) -> str | None:
        """Return the user to whom a visitor belongs; other ids are returned as they are."""
        found = self._owners.get(user_id) if user_id is not None else None
        return user_id if found is None else found.user_id

    def find_first_visitor(self, user_id: str | None) -> str | None:
        """Return the first visitor that was merged into a user; others are returned as they are."""
        found = self._find_first(user_id)
        return user_id if found is None else found.visitor_id

    def find_unit(self, user_id: str | None) -> str | None:
        """Return the id by which a person's arms are assigned: that of the first slate, as long as it is known.

        Whoever is not merged has the own id.
        """
        found = self._find_first(user_id)
        return user_id if found is None else found.unit or found.visitor_id

    def _find_first(self, user_id: str | None) -> Identity | None:
        user_id = self.find_user(user_id)
        return self._first.get(user_id) if user_id is not None else None

    def add(self, identity: Identity) -> None:
        """Answer a visitor's requests as the user's from now on."""
        self._owners[identity.visitor_id] = identity
        first = self._first.get(identity.user_id)
        if first is None or (identity.time, identity.visitor_id) < (first.time, first.visitor_id):
            self._first[identity.user_id] = identity

    def forget(self, user_id: str) -> list[str]:
        """Forget the visitors of an erased user; returns their ids."""
        return self.remove(lambda identity: identity.user_id == user_id)

    def remove(self, is_gone: Callable[[Identity], bool]) -> list[str]:
        """Forget merges; returns the visitors' ids."""
        visitors = [visitor for visitor, identity in list(self._owners.items()) if is_gone(identity)]
        removed = [self._owners.pop(visitor, None) for visitor in visitors]
        for user_id in {identity.user_id for identity in removed if identity is not None}:
            self._first.pop(user_id, None)
            for identity in [other for other in list(self._owners.values()) if other.user_id == user_id]:
                self.add(identity)
        return visitors
