"""API keys: their secrets are random, and only hashes of them are stored.

A key is `hs_ID_SECRET`. The secret has 256 random bits, so that one round of SHA-256 is enough: there is nothing to
guess. A widget's key is never sent; the shop's server signs its users' tokens with it, and the store holds the signing
secret itself, because a signature can only be checked with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import Literal

from handsell.core.units import SECOND_US

PREFIX = "hs_"
ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
ID_LENGTH = 10
SECRET_BYTES = 32
LONGEST_SECRET = 100  # characters of a text that may be one

KeyKind = Literal["server", "widget"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A row of table `api_keys`; times are µs, `offset` is that of the key's last change.

    `secret` and `former_secret` are SHA-256 of the secrets in hex; for a widget they are its signing secrets.
    """

    key_id: str
    name: str
    kind: KeyKind
    scopes: tuple[str, ...]
    secret: str
    created_us: int
    former_secret: str | None = None  # valid until former_until_us, after a rotation
    former_until_us: int | None = None
    expires_us: int | None = None
    revoked_us: int | None = None
    rate_per_s: float | None = None
    quota_per_day: int | None = None
    offset: int = 0

    def find_secrets(self, now_us: int) -> tuple[str, ...]:
        """Return the secrets that are valid now: none of a revoked or expired key, two during a rotation."""
        if self.revoked_us is not None or (self.expires_us is not None and now_us >= self.expires_us):
            return ()
        if self.former_secret is None or self.former_until_us is None or now_us >= self.former_until_us:
            return (self.secret,)
        return (self.secret, self.former_secret)

    def describe_state(self, now_us: int) -> str:
        if self.revoked_us is not None:
            return "revoked"
        if self.expires_us is not None and now_us >= self.expires_us:
            return "expired"
        return "rotating" if len(self.find_secrets(now_us)) > 1 else "valid"


def create_key(
    name: str,
    kind: KeyKind,
    scopes: tuple[str, ...],
    now_us: int,
    *,
    expires_us: int | None = None,
    rate_per_s: float | None = None,
    quota_per_day: int | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key and its text, which is stored nowhere."""
    key_id, secret = "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH)), _draw_secret()
    key = ApiKey(
        key_id, name, kind, scopes, _stored(kind, secret), now_us,
        expires_us=expires_us, rate_per_s=rate_per_s, quota_per_day=quota_per_day,
    )  # fmt: skip
    return key, _text(key, secret)


def rotate_key(key: ApiKey, now_us: int, overlap_s: float) -> tuple[ApiKey, str]:
    """Return the key with another secret, and its text; the former secret stays valid for `overlap_s`."""
    secret = _draw_secret()
    until = now_us + round(overlap_s * SECOND_US)
    changed = replace(key, secret=_stored(key.kind, secret), former_secret=key.secret, former_until_us=until)
    return changed, _text(key, secret)


def parse_key(text: str) -> tuple[str, str] | None:
    """Return the id of a server's key and the SHA-256 of its secret; None for any other text."""
    id_, _, secret = text.removeprefix(PREFIX).partition("_")
    if not text.startswith(PREFIX) or len(id_) != ID_LENGTH or not 0 < len(secret) <= LONGEST_SECRET:
        return None
    return id_, hash_secret(secret)


def matches(hashed: str, stored: tuple[str, ...]) -> bool:
    """Compare a hashed secret with those stored, in time that does not depend on either."""
    found = False
    for one in stored:
        found |= hmac.compare_digest(hashed, one)
    return found


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _draw_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def _stored(kind: KeyKind, secret: str) -> str:
    return secret if kind == "widget" else hash_secret(secret)


def _text(key: ApiKey, secret: str) -> str:
    return secret if key.kind == "widget" else f"{PREFIX}{key.key_id}_{secret}"
