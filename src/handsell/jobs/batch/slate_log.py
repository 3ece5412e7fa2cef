"""Append the slates of a job to the event store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handsell.config import Config
from handsell.jobs.store_writer import open_store_writer

BATCH = 500  # slates in one append


def log_slates(config: Config, slates: Sequence[dict[str, Any]]) -> None:
    """Append slates as impressions; they are durable on return, and appending them twice has no effect.

    Raises EventStoreError if nothing was stored.
    """
    with open_store_writer(config) as write:
        for begin in range(0, len(slates), BATCH):
            write("append_slates", slates[begin : begin + BATCH])
