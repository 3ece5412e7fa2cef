"""The part of a catalog that a shard's eligibility reads, and requests with the shard's own item numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.eligibility.columns import find_kind
from handsell.retrieval.sharding.numbering import is_own

CATALOGS = "eligibility"  # folder of a bundle, with one folder per shard
FOLDER = "shard-{}"


def save_shard_catalogs(snapshot: Snapshot, shards: int, bundle: Path) -> None:
    """Save the part of each shard, one after the other."""
    for shard in range(shards):
        take_shard(snapshot, shard, shards).save(find_catalog(bundle, shard))


def find_catalog(bundle: Path, shard: int) -> Path:
    """Return the folder of a shard's part in the folder of a bundle."""
    return bundle / CATALOGS / FOLDER.format(shard)


def take_shard(snapshot: Snapshot, shard: int, shards: int) -> Snapshot:
    """Return the shard's rows of what eligibility reads: without item ids, feature values and unreadable columns."""
    rows = np.arange(shard, len(snapshot), shards)
    schema = snapshot.metadata.schema
    readable = [field.name for field in schema if find_kind(field.type) is not None]
    return replace(
        snapshot,
        items=Vocabulary.of(()),
        creator=snapshot.creator[rows],
        item_tags=snapshot.item_tags.take(rows),
        published=snapshot.published[rows],
        expires=snapshot.expires[rows],
        available=snapshot.available[rows],
        values=np.zeros((len(rows), 0), np.float32),
        value_names=(),
        metadata=snapshot.metadata.select(readable).take(pa.array(rows)),
    )


def strip_requests(requests: Requests) -> Requests:
    """Return the requests without what eligibility does not read: history and profile."""
    empty = np.zeros((len(requests), 0))
    profile = Profile(*(empty.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4")))
    exclusions = requests.exclusions
    if exclusions is not None:
        exclusions = replace(exclusions, ignored=None, ignored_times=None)
    return replace(requests, history=History.empty(len(requests), 0), profile=profile, exclusions=exclusions)


def renumber_requests(requests: Requests, catalog: Snapshot, shard: int, shards: int) -> Requests:
    """Return the requests with the rows of a shard for its items, without others' items.

    Creators and tags that came after the bundle are dropped, too: no item of the shard's catalog has them.
    """

    def keep(items: Ragged) -> Ragged:
        own = items.where(is_own(items.values, shard, shards))
        return Ragged(own.values // shards, own.offsets)

    seen, exclusions = requests.seen, requests.exclusions
    own = is_own(seen.item.values, shard, shards)
    if exclusions is not None:
        exclusions = replace(
            exclusions,
            shown=keep(exclusions.shown),
            capped=keep(exclusions.capped),
            creator=exclusions.creator.where(exclusions.creator.values < len(catalog.creators)),
            tag=exclusions.tag.where(exclusions.tag.values < len(catalog.tags)),
        )
    return replace(
        requests,
        exclude=keep(requests.exclude),
        seen=Seen(keep(seen.item), seen.time.where(own)),
        exclusions=exclusions,
    )
