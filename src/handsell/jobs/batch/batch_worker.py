"""A bundle in a worker process, and the requests of users as the gateway builds them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from handsell.bundles.local_bundle import LocalBundle
from handsell.config import load_config
from handsell.core.batches import Requests
from handsell.events.store.interface import EventReader

KEPT = 4  # bundles: the live one and those of arms


def open_worker(source: str, bundle: str) -> LocalBundle:
    """Return the worker of this process, on the catalog as of now; raises BundleError and EventStoreError."""
    worker = load_worker(source, bundle)
    worker.read_changes()
    return worker


@lru_cache(KEPT)
def load_worker(source: str, bundle: str) -> LocalBundle:
    """Load config, stages and feature store, once per worker process."""
    return LocalBundle.open(load_config(source), bundle)


def look_up_requests(
    worker: LocalBundle, surface: str, time: int, user_ids: list[str], reader: EventReader, away: int | None = None
) -> Requests:
    """Build requests as the gateway does at `time` µs; `away` µs as in `build_requests_from_rows`."""
    return worker.build_requests(user_ids, np.full(len(user_ids), time, np.int64), surface, reader, away)
