"""Pages of one feed: an opaque cursor lists the items shown so far, and every page is the best of the rest.

The cursor holds all the state, so that any gateway replica can continue with it, also after another bundle is live.
Listed items are excluded, so no page repeats an item; the others remain candidates, so no item is skipped. Catalog
numbers are permanent and mean the same in every bundle of a catalog. A cursor has a checksum and is not secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from handsell.core.errors import RequestError

KEY = 8  # bytes that identify a feed
CHECK = 4  # bytes of checksum
VERSION = b"handsell cursor 1"
LONGEST = 8_192  # characters


@dataclass(frozen=True, slots=True)
class Feed:
    """What all pages share: surface, user, filter, catalog, and the item or basket."""

    key: bytes

    @classmethod
    def of(cls, *shared: Any) -> Feed:
        return cls(blake2b(json.dumps(shared).encode(), digest_size=KEY).digest())

    def encode(self, shown: np.ndarray) -> str:
        """Encode the items (G,) shown so far: 2 or 4 bytes per item, and a third more as text."""
        numbers = sorted(set(shown.tolist()))  # a page has a few: NumPy would take five times as long
        steps = [after - before for before, after in zip([0, *numbers], numbers, strict=False)]
        narrow = max(steps, default=0) < 2**16
        body = self.key + (b"2" if narrow else b"4") + struct.pack(f"<{len(steps)}{'H' if narrow else 'I'}", *steps)
        return base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")

    def decode(self, cursor: str | None) -> np.ndarray:
        """(G,) int32 items of a cursor, ascending; raises RequestError (422) if it is invalid or of another feed."""
        if cursor is None:
            return np.zeros(0, np.int32)
        body = _body(cursor)
        if body[:KEY] != self.key:
            raise RequestError(
                "cursor belongs to another feed: expected the user, surface, filter and item of the request that "
                "returned it; leave it out to begin a new feed",
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
