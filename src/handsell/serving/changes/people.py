"""Merge visitors into users, and erase people."""

from __future__ import annotations

import asyncio
import logging

from handsell.core.errors import RequestError
from handsell.events.merged_visitors import ANONYMOUS
from handsell.events.store.interface import EventStoreError, Identity, IdentityConflict
from handsell.serving.changes.identities import Identities
from handsell.serving.graph.event_sink import EventSink
from handsell.serving.graph.loaded_bundle import LoadedBundle
from handsell.serving.http.catalog_schemas import ErasureAnswer, MergeAnswer

log = logging.getLogger(__name__)

PENDING = (
    "files of the deployment: `handsell erase` or the next `handsell train` removes this person from them",
    "bundle {bundle}: its models were fitted with this person's events; the next training replaces it",
)


class People:
    """Answers the endpoints about a person's identity and data."""

    def __init__(self, events: EventSink, identities: Identities, deadline_s: float):
        self._events, self._identities, self._deadline_s = events, identities, deadline_s

    async def merge(self, bundle: LoadedBundle, visitor_id: str, user_id: str) -> MergeAnswer:
        """Give a visitor's history to a user; durable on return. Raises RequestError (409, 422) for a conflict."""
        if user_id.startswith(ANONYMOUS):
            raise RequestError(
                f"user_id: expected the id of a user, got that of a visitor, {user_id!r:.80}: merge the visitor into "
                "the user who signed in",
                field="user_id",
            )
        visitor, time = ANONYMOUS + visitor_id, bundle.clock.now()
        done = await self._write("merge_identity", visitor, user_id, time)
        self._identities.add(Identity(visitor, user_id, time, unit=done.unit))
        await self._forget(bundle, [visitor])
        return MergeAnswer(
            visitor_id=visitor_id, user_id=user_id, moved_events=done.accepted, duplicates=done.duplicates
        )

    async def erase(self, bundle: LoadedBundle, user_id: str) -> ErasureAnswer:
        """Remove a person from the event store and the online features.

        The store keeps the id until the files of the deployment are clean.
        """
        done = await self._write("erase_user", user_id, bundle.clock.now())
        visitors = self._identities.forget(user_id)
        forgotten = await self._forget(bundle, [user_id, *visitors])
        pending = (
            [] if forgotten else ["online features: the feature store did not answer; `handsell erase` removes them"]
        )
        pending += [text.format(bundle=bundle.release.bundle) for text in PENDING]
        return ErasureAnswer(user_id=user_id, status="pending", deleted_rows=done.accepted, pending=pending)

    async def _write(self, method: str, *args: object):
        try:
            async with asyncio.timeout(self._deadline_s):
                return await getattr(self._events, method)(*args)
        except IdentityConflict as error:
            raise RequestError(str(error), field="user_id", status=409, code="identity_conflict") from None
        except TimeoutError:
            raise EventStoreError("the event store did not answer in time") from None

    async def _forget(self, bundle: LoadedBundle, user_ids: list[str]) -> bool:
        """Remove the online rows of users; returns whether the feature store did so."""
        try:
            await bundle.forget_users(user_ids)
        except Exception as error:
            log.warning("online rows were not removed: %s", error)
            return False
        return True
