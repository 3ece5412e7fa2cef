"""Pages of one feed: an opaque cursor says what has been given, and every page is the best of the rest.

The cursor is all the state there is: any gateway replica can go on with it, also after another bundle went live. What
it lists is excluded, so no page repeats an item; what it does not list stays a candidate of every later page, so none
is skipped. Catalog numbers are permanent, so they mean the same in every bundle of a catalog.

A cursor is checked, not secret: its holder could exclude the same items by name.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from handsell.core.errors import RequestError

KEY = 8  # bytes that tell one feed from another
CHECK = 4  # bytes of checksum
VERSION = b"handsell cursor 1"
LONGEST = 8_192  # characters


@dataclass(frozen=True, slots=True)
class Feed:
    """What stays the same from page to page: surface, user, filter, catalog and what the feed is about."""

    key: bytes

    @classmethod
    def of(cls, *same: Any) -> Feed:
        return cls(blake2b(json.dumps(same).encode(), digest_size=KEY).digest())

    def cursor(self, given: np.ndarray) -> str:
        """Text for the items (G,) given so far: about 2 or 4 bytes an item, and a third more for the text."""
        steps = np.diff(np.unique(given), prepend=0)
        narrow = steps.max(initial=0) < 2**16
        body = self.key + (b"2" if narrow else b"4") + steps.astype("<u2" if narrow else "<u4").tobytes()
        return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")

    def given(self, cursor: str | None) -> np.ndarray:
        """(G,) int32 items that a cursor of this feed lists, ascending; raises RequestError (422) for any other."""
        if cursor is None:
            return np.zeros(0, np.int32)
        body = _body(cursor)
        if body[:KEY] != self.key:
            raise RequestError(
                "cursor is of another feed: expected user, surface, filter and item of the request that gave it; "
                "leave it out to begin a new one",
                field="cursor", code="foreign_cursor",
            )  # fmt: skip
        steps = np.frombuffer(body[KEY + 1 :], "<u2" if body[KEY : KEY + 1] == b"2" else "<u4")
        return np.cumsum(steps.astype(np.int64)).astype(np.int32)


def _body(cursor: str) -> bytes:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body = raw[:-CHECK]
    if len(body) <= KEY or _check(body) != raw[-CHECK:]:
        raise RequestError(
            f"cursor is expected to be a next_cursor of an earlier answer, unchanged; got {cursor!r:.40}",
            field="cursor", code="invalid_cursor",
        )  # fmt: skip
    return body


def _check(body: bytes) -> bytes:
    return blake2b(body, digest_size=CHECK, key=VERSION).digest()
