"""Create, list, rotate and revoke API keys. Running gateways know of a change about a second later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace

from handsell.access.api_key import ApiKey, KeyKind, create_key, rotate_key
from handsell.access.caller import SCOPES
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.units import DAY_US, SECOND_US
from handsell.events.store.opening import has_one_writer, open_reader
from handsell.jobs.audited_command import describe_command
from handsell.jobs.cluster import connect
from handsell.jobs.store_writer import Write, open_store_writer

WIDGET_SCOPES = ("recommend", "events")
LONGEST_NAME = 80


class ApiKeyError(HandsellError):
    """An API key that does not exist, or cannot be what it is asked to be."""


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a new key may do."""

    name: str
    kind: KeyKind
    scopes: tuple[str, ...]
    expires_in_s: float | None = None
    rate_per_s: float | None = None
    quota_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class ListedKey:
    key: ApiKey
    state: str
    requests_today: int | None  # None without a quota: they are not counted


def create(config: Config, terms: KeyTerms) -> tuple[ApiKey, str]:
    """Store a new key and return it with its text; raises HandsellError."""
    _check(terms)
    now_us = _now_us()
    expires_us = None if terms.expires_in_s is None else now_us + round(terms.expires_in_s * SECOND_US)
    key, text = create_key(
        terms.name, terms.kind, terms.scopes, now_us,
        expires_us=expires_us, rate_per_s=terms.rate_per_s, quota_per_day=terms.quota_per_day,
    )  # fmt: skip
    _put(config, key, "create")
    return key, text


def list_keys(config: Config) -> list[ListedKey]:
    """Return all keys, in the order of their names; raises EventStoreError."""
    now_us = _now_us()
    with closing(open_reader(config)) as reader:
        keys, used = reader.read_keys(), reader.read_usage(now_us // DAY_US)
    listed = []
    for key in sorted(keys, key=lambda key: (key.name, key.created_us)):
        quota = key.quota_per_day if key.quota_per_day is not None else config.access.quota_per_day
        listed.append(ListedKey(key, key.describe_state(now_us), None if quota is None else used.get(key.key_id, 0)))
    return listed


def rotate(config: Config, key_id: str, overlap_s: float) -> tuple[ApiKey, str]:
    """Give a key another secret; the former one stays valid for some time. Returns the key and its new text."""
    key, text = rotate_key(_find_valid(config, key_id), _now_us(), overlap_s)
    _put(config, key, "rotate")
    return key, text


def revoke(config: Config, key_id: str) -> ApiKey:
    """Make a key invalid for good."""
    key = replace(_find_valid(config, key_id), revoked_us=_now_us())
    _put(config, key, "revoke")
    return key


def _check(terms: KeyTerms) -> None:
    if not terms.name.strip() or len(terms.name) > LONGEST_NAME or not terms.name.isprintable():
        raise ApiKeyError(f"NAME: expected 1 to {LONGEST_NAME} printable characters, got {terms.name[:100]!r}")
    if not terms.scopes:
        raise ApiKeyError(f"--scope: expected at least one of {', '.join(SCOPES)}, got none")
    if terms.kind == "widget" and (others := [scope for scope in terms.scopes if scope not in WIDGET_SCOPES]):
        raise ApiKeyError(f"--scope: a widget's key may have {' and '.join(WIDGET_SCOPES)}, got {', '.join(others)}")


def _find_valid(config: Config, key_id: str) -> ApiKey:
    with closing(open_reader(config)) as reader:
        keys = {key.key_id: key for key in reader.read_keys()}
    if key_id not in keys:
        raise ApiKeyError(f"there is no key {key_id[:40]!r}: see `handsell keys list`")
    if keys[key_id].revoked_us is not None:
        raise ApiKeyError(f"key {key_id} is revoked for good: create another one")
    return keys[key_id]


def _put(config: Config, key: ApiKey, action: str) -> None:
    scopes = f"{key.kind}: {' '.join(key.scopes)}"
    with _open_writer(config) as write:
        write("put_key", key)
        write("append_audit", [describe_command(f"keys {action}", f"key {key.key_id} ({key.name})", "done", scopes)])


@contextmanager
def _open_writer(config: Config) -> Iterator[Write]:
    """Open the store; a SQLite file through the running service, which is its one writer."""
    through_service = os.environ.get("RAY_ADDRESS") and has_one_writer(config)
    with connect(config.jobs.num_cpus) if through_service else nullcontext(), open_store_writer(config) as write:
        yield write


def _now_us() -> int:
    return time.time_ns() // 1_000
