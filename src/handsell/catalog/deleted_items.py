"""Slates without items that the catalog no longer has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Slates
from handsell.core.funnel import remove_items


def drop_deleted(slates: Slates, snapshot: Snapshot) -> Slates:
    """Return slates without items that are deleted or unknown, and without reasons that name one; others move up."""
    gone = (slates.item != NONE) & _is_gone(slates.item, snapshot)
    unnamed = (slates.reason_item != NONE) & _is_gone(slates.reason_item, snapshot)
    if unnamed.any():
        reason = np.where(unnamed, 0, slates.reason).astype(np.int8)
        slates = replace(slates, reason=reason, reason_item=np.where(unnamed, NONE, slates.reason_item))
    return remove_items(slates, gone) if gone.any() else slates


def _is_gone(items: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    return (items >= len(snapshot)) | snapshot.is_deleted(items)
