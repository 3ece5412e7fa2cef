"""The catalog as the data and features steps would build it, in memory, and requests of new users for it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.data.alignment import align_rows, find_present, mark_unavailable
from handsell.data.numbering import extend_vocabulary
from handsell.features.rows import Vocabularies
from handsell.jobs.features.item_rows import build_item_table


def preview_catalog(items: pa.Table, seen: pa.Array, recommend_deleted: bool = False) -> Snapshot:
    """Build a snapshot, without feature values, of an items table and the ids of items with events."""
    known = items.filter(pc.is_valid(items["item_id"]))
    ids = extend_vocabulary(None, [known["item_id"], seen])
    creators, tags = (
        extend_vocabulary(None, [pc.list_flatten(known[name].combine_chunks())]) for name in ("creators", "tags")
    )
    listed, used = np.zeros((2, len(ids)), bool)
    listed[ids.number(known["item_id"].to_pylist())] = used[ids.number(seen.to_pylist())] = True
    table = align_rows(known, "item_id", ids)
    table = mark_unavailable(table, find_present(listed, used, recommend_deleted)).combine_chunks()
    read = build_item_table(table, Vocabularies(Vocabulary.of([]), ids, creators, tags))
    return Snapshot(
        version=0,
        as_of=0,
        items=ids,
        creators=creators,
        tags=tags,
        creator=read.creator,
        item_tags=read.tags,
        published=read.published,
        expires=read.expires,
        available=read.available,
        values=np.zeros((len(ids), 0), np.float32),
        value_names=(),
        metadata=read.metadata,
    )


def build_new_user_requests(surface: np.ndarray, time_us: int, attributes: np.ndarray | None) -> Requests:
    """Build requests at one time of users without events, on surfaces (B,), with attributes (B, A) or none."""
    n = len(surface)
    nothing = np.zeros((n, 0))
    return Requests(
        user=np.full(n, -1, np.int32),
        time=np.full(n, time_us, np.int64),
        surface=surface.astype(np.int8),
        history=History.empty(n, 1),
        profile=Profile(nothing, nothing.astype(np.int32), nothing, nothing.astype(np.int32), nothing),
        seen=Seen(Ragged.empty(n), Ragged.empty(n, np.int64)),
        exclude=Ragged.empty(n),
        attributes=attributes,
    )
