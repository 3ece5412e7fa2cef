"""The API keys as of a second ago: requests are checked against them without reading the event store."""

from __future__ import annotations

import time
from typing import NamedTuple

from handsell.access.api_key import ApiKey, hash_secret, matches, parse_key
from handsell.access.caller import Caller
from handsell.core.units import SECOND_US
from handsell.events.store.interface import EventReader
from handsell.serving.http.access.widget_tokens import LONGEST_TOKEN, find_key_id, read_user

NOBODY = ("0" * 64,)  # compared where no key has the id, so that this takes as long
REMEMBERED = 10_000  # tokens that have been checked


class _CheckedToken(NamedTuple):
    caller: Caller
    secrets: tuple[str, ...]
    ends_us: int


class KnownKeys:
    """All keys by id. Where the event store is away, the known keys continue to hold."""

    def __init__(self, widget_token_s: int):
        self.is_complete = False  # all keys have been read once
        self._widget_token_s = widget_token_s
        self._keys: dict[str, ApiKey] = {}
        self._callers: dict[str, Caller] = {}
        self._tokens: dict[str, _CheckedToken] = {}  # by the SHA-256 of the token
        self._offset = 0

    def read(self, reader: EventReader) -> None:
        """Read the keys that were changed since; raises EventStoreError."""
        for key in reader.read_keys(self._offset):
            self._keys[key.key_id] = key
            self._callers[key.key_id] = Caller(key.key_id, key.name, frozenset(key.scopes))
            self._offset, self._tokens = key.offset, {}
        self.is_complete = True

    def find(self, key_id: str) -> ApiKey:
        return self._keys[key_id]

    def identify(self, text: str) -> Caller | None:
        """Return who sends a key or a widget's token, None if it is not valid now."""
        now_us = time.time_ns() // 1_000
        parsed = parse_key(text)
        if parsed is None:
            return self._identify_widget(text, now_us)
        key_id, secret = parsed
        key = self._keys.get(key_id)
        valid = key.find_secrets(now_us) if key is not None and key.kind == "server" else ()
        if not matches(secret, valid or NOBODY) or not valid:
            return None
        return self._callers[key_id]

    def _identify_widget(self, token: str, now_us: int) -> Caller | None:
        """Check a token, or remember that it has been checked with the secrets that are valid now."""
        if len(token) > LONGEST_TOKEN:
            return None
        digest = hash_secret(token)
        checked = self._tokens.get(digest)
        key_id = find_key_id(token) if checked is None else checked.caller.key_id
        key = self._keys.get(key_id or "")
        if key is None or key.kind != "widget":
            return None
        secrets = key.find_secrets(now_us)
        if checked is not None and checked.secrets == secrets and now_us < checked.ends_us:
            return checked.caller
        found = read_user(token, secrets, self._widget_token_s)
        if found is None:
            return None
        user_id, ends = found
        caller = Caller(key.key_id, key.name, frozenset(key.scopes), user_id)
        if len(self._tokens) >= REMEMBERED:
            self._tokens = {}
        self._tokens[digest] = _CheckedToken(caller, secrets, int(ends * SECOND_US))
        return caller
