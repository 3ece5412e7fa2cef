"""Keys of answers: hashes of everything that an answer depends on, apart from the bundle and the catalog.

A key covers the contents of what is read for a request, not their versions: the user's row, the events logged since,
exclusions, impressions, and the request itself. So an event, a block or an impression changes the key wherever it was
received, and requests with equal contents share an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from handsell.core.batches import UserExclusions
from handsell.core.units import MINUTE_US
from handsell.events.states import Events
from handsell.features.row_columns import Rows
from handsell.features.storage.encoded_rows import EncodedRows
from handsell.serving.graph.users import UserReads
from handsell.serving.http.queries import Query

STEP_US = 15 * MINUTE_US  # in every time zone an hour and a day begin on one of these steps
DIGEST = 16  # bytes

NO_SESSION, NO_EVENTS = (b"",) * 4, (b"",) * 5
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
    _add(
        hashed,
        [
            orjson.dumps([query.surface, query.time // STEP_US, query.overlay, query.filter, query.key_id]),
            *(_list_session(query) if len(query.session) else NO_SESSION),
            query.exclude.tobytes(), query.creators.tobytes(), query.tags.tobytes(),
            *_list_row(reads.rows, b),
            *(_list_events(logged.tail, b) if len(logged.tail) else NO_EVENTS),
            *_list_exclusions(logged.exclusions, b),
        ],
    )  # fmt: skip
    ranked = hashed.digest()
    parts = [orjson.dumps([query.count, query.arms])]
    if logged.impressions is not None:
        parts += logged.impressions.item.row(b).tobytes(), logged.impressions.time.row(b).tobytes()
    _add(hashed, parts)
    return AnswerKey(hashed.digest(), ranked)


def _list_session(query: Query) -> Iterable[bytes]:
    """Yield the session's events; those without a time of their own are as long ago as before."""
    session = query.session
    ago = query.time - session.time
    for array in (session.item, session.type, session.weight, np.where(ago <= len(session), ago, -session.time)):
        yield array.tobytes()


def _list_row(rows: Rows, b: int) -> Iterable[bytes | None]:
    """Return the bytes of a feature row: as the store has them, which nobody decodes for a key, or of its values."""
    return rows.list_bytes(b) if isinstance(rows, EncodedRows) else _encode_values(rows, b)


def _encode_values(rows: Rows, b: int) -> list[bytes]:
    return [orjson.dumps([cells[b] for cells in rows.values()])]


def _list_events(tail: Events, b: int) -> Iterable[bytes]:
    mine = np.flatnonzero(tail.row == b)
    for array in (tail.item, tail.type, tail.time, tail.weight, tail.offset):
        yield array[mine].tobytes()


def _list_exclusions(exclusions: UserExclusions | None, b: int) -> Iterable[bytes]:
    return (b"" if exclusions is None else getattr(exclusions, name).row(b).tobytes() for name in EXCLUDED)


def _add(hashed: blake2b, parts: Sequence[bytes | None]) -> None:
    """Hash parts with the length of each, by which those that follow each other cannot be mistaken for others."""
    hashed.update(orjson.dumps([None if part is None else len(part) for part in parts]))
    hashed.update(b"".join(filter(None, parts)))
