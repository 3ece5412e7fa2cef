"""What Ray Serve's router of a handle knows: the replicas, and how many calls each has for autoscaling.

The only file that reads it. Serve 2.60 has no public way to read the list, or to count a call that travels elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

ADDRESS = "stage_address"  # in what a replica says of itself to Serve


@dataclass(frozen=True, slots=True)
class Replica:
    id: Any  # Serve's
    address: str  # HOST:PORT


class ServeRouter:
    def __init__(self, handle: DeploymentHandle):
        self._handle = handle
        self._router: Any = None
        self._seen: dict[Any, Any] | None = None
        self._replicas: list[Replica] = []

    def list_replicas(self) -> list[Replica]:
        """Return the running replicas that have announced an address."""
        if self._router is None:  # not in the constructor: it may need a running event loop
            followed: Any = self._handle.options()  # starts to follow the list
            self._router = followed._router._asyncio_router
        known = self._router._request_router
        current = {} if known is None else known.curr_replicas
        if current is not self._seen:  # the router replaces its dictionary at every change
            announced = [(one.replica_id, one.replica_metadata.get(ADDRESS)) for one in list(current.values())]
            self._replicas = [Replica(name, address) for name, address in announced if address]
            self._seen = current
        return self._replicas

    @contextlib.contextmanager
    def count(self, replica: Replica) -> Iterator[None]:
        """Let Serve's autoscaler know of a call while it runs."""
        manager = self._router._metrics_manager
        manager.inc_num_running_requests_for_replica(replica.id)
        try:
            yield
        finally:
            manager.dec_num_running_requests_for_replica(replica.id)
