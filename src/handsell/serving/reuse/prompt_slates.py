"""Kept slates that are found at once: a query whose slate is kept needs no batch, no task and no decoded row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from handsell.config import Config
from handsell.core.logs.request_trace import set_recommendation_id
from handsell.serving.graph.users import UserLookup
from handsell.serving.http.queries import Query
from handsell.serving.reuse.slate_reuse import SlateReuse
from handsell.serving.reuse.user_slate import UserSlate
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.tracing import trace


class PromptSlates:
    """Finds slates in a bundle's kept answers, by the same keys as its batches.

    Only for queries that are likely to have one: for the others, the reads of the stores would be made twice.
    """

    def __init__(self, reuse: SlateReuse, users: UserLookup, metrics: Metrics, change_config: Callable[[str], Config]):
        self._reuse, self._users, self._metrics, self._change_config = reuse, users, metrics, change_config

    def find(self, query: Query) -> UserSlate | None:
        """Return the kept slate of a query; None where a batch has to look, since it may have to wait or compute."""
        if not self._reuse.expects_slate(query):
            return None
        set_recommendation_id(query.recommendation_id)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with trace("features"):
            reads = self._users.read_at_once([query], self._change_config(query.overlay))
        if reads is None:
            return None
        (key,) = self._reuse.build_keys([query], reads)
        slate = self._reuse.find_slate(query, key)
        if slate is not None:
            self._metrics.observe_reads(loop.time() - started, reads.list_ages())
        return slate
