"""The offline store of a process that reads and writes online rows alone, such as a gateway.

With the configured one, Feast imports DuckDB and Ibis: 40 MiB for nothing.
"""

from __future__ import annotations

from feast.infra.offline_stores.offline_store import OfflineStore
from feast.repo_config import FeastConfigBaseModel

ONLINE_ONLY = f"{__name__}.UnusedOfflineStore"  # Feast imports a store by its path


class UnusedOfflineStoreConfig(FeastConfigBaseModel):
    """The settings of this store: its path."""

    type: str = ONLINE_ONLY


class UnusedOfflineStore(OfflineStore):
    """A store that Feast never opens: it is abstract, so that opening it is an error."""
