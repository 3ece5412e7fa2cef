"""Retrievers that follow live changes of the catalog."""

from __future__ import annotations

import logging

from handsell.catalog.snapshot import Snapshot
from handsell.core.protocols import Retriever

log = logging.getLogger(__name__)


def follow_snapshot(retriever: Retriever, snapshot: Snapshot) -> Retriever:
    """Return the retriever on a version of the live catalog, if it has `with_snapshot`; else it stays as it is.

    One that fails stays on its version: filters hold whatever a retriever returns.
    """
    if not hasattr(retriever, "with_snapshot"):
        return retriever
    try:
        return retriever.with_snapshot(snapshot)
    except Exception:
        log.exception("retriever %s does not follow the catalog's changes; it stays as it was", retriever)
        return retriever
