"""Tokens of public widgets: a JSON web token (HS256) that a shop's server has signed for one of its users.

Its header names the key (`kid`), its claims the user (`sub`) and the time of its end (`exp`). The web page sends it
like a key. Whoever has it may ask for this user until it ends, so its life is short.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import jwt

ALGORITHM = "HS256"
LONGEST_TOKEN = 4_000


def find_key_id(token: str) -> str | None:
    """Return the id of the key that a token names; None if the text is no token."""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError:
        return None
    return key_id if isinstance(key_id, str) else None


def read_user(token: str, secrets: Sequence[str], longest_s: int) -> tuple[str, float] | None:
    """Return user and end (s) of a token that one of the secrets has signed; None for an ended or an invalid one."""
    for secret in secrets:
        try:
            claims = jwt.decode(token, secret, [ALGORITHM], {"require": ["sub", "exp"]})
        except jwt.InvalidTokenError:
            continue
        ends = float(claims["exp"])
        return (str(claims["sub"]), ends) if ends - time.time() <= longest_s else None
    return None
