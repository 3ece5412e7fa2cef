"""Keys of answers: hashes of everything that an answer depends on, apart from the bundle and the catalog.

A key covers the contents of what is read for a request, not their versions: the user's row, the events logged since,
exclusions, impressions, and the request itself. So an event, a block or an impression changes the key wherever it was
received, and requests with equal contents share an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from handsell.core.batches import UserExclusions
from handsell.core.units import MINUTE_US
from handsell.events.states import Events
from handsell.features.request_builder import QueryBatch
from handsell.serving.graph.users import UserReads
from handsell.serving.http.queries import Query

STEP_US = 15 * MINUTE_US  # in every time zone an hour and a day begin on one of these steps
DIGEST = 16  # bytes

EXCLUDED = ("shown", "capped", "creator", "tag")


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """The keys of one query's answer, by how much of it may be given again."""

    slate: bytes
    ranked: bytes  # of the ranked candidates, which re-ranking makes a slate of


def build_keys(queries: Iterable[Query], reads: UserReads) -> list[AnswerKey | None]:
    """Return the keys of a batch of queries, from what has been read for them; None for values without a hash."""
    return [_find_key(query, reads, b) for b, query in enumerate(queries)]


def _find_key(query: Query, reads: UserReads, b: int) -> AnswerKey | None:
    try:
        return _build_key(query, reads, b)
    except orjson.JSONEncodeError:  # such as a text with half a character, or a value of an unknown type
        return None


def _build_key(query: Query, reads: UserReads, b: int) -> AnswerKey:
    logged = reads.logged
    hashed = blake2b(digest_size=DIGEST)
    for part in (
        *_list_request(query, reads.batch, b),
        orjson.dumps([cells[b] for cells in reads.rows.values()]),
        *_list_events(logged.tail, b),
        *_list_exclusions(logged.exclusions, b),
    ):
        _add(hashed, part)
    ranked = hashed.digest()
    _add(hashed, orjson.dumps([query.count, query.arms]))
    if logged.impressions is not None:
        _add(hashed, logged.impressions.item.row(b).tobytes())
        _add(hashed, logged.impressions.time.row(b).tobytes())
    return AnswerKey(hashed.digest(), ranked)


def _list_request(query: Query, batch: QueryBatch, b: int) -> Iterable[bytes]:
    """Yield what the caller asks for; events of the session without a time of their own are as long ago as before."""
    session = query.session
    ago = query.time - session.time
    yield orjson.dumps([query.surface, query.time // STEP_US, query.overlay, query.filter, query.key_id])
    for array in (
        session.item, session.type, session.weight, np.where(ago <= len(session), ago, -session.time),
        batch.exclude.row(b), batch.creators.row(b), batch.tags.row(b),
    ):  # fmt: skip
        yield array.tobytes()


def _list_events(tail: Events, b: int) -> Iterable[bytes]:
    mine = np.flatnonzero(tail.row == b) if len(tail) else tail.row
    for array in (tail.item, tail.type, tail.time, tail.weight, tail.offset):
        yield array[mine].tobytes()


def _list_exclusions(exclusions: UserExclusions | None, b: int) -> Iterable[bytes]:
    for name in EXCLUDED:
        yield b"" if exclusions is None else getattr(exclusions, name).row(b).tobytes()


def _add(hashed: blake2b, part: bytes) -> None:
    hashed.update(len(part).to_bytes(4, "little"))
    hashed.update(part)
