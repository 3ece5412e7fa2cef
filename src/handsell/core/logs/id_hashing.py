"""Keyed hashes of user and item ids for logs: equal ids can be joined, but not guessed without the deployment's key."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path

from handsell.core.errors import ConfigError

log = logging.getLogger(__name__)

KEY = "HANDSELL_LOG_KEY"  # environment variable with the key, which all processes of a deployment share
KEY_BYTES = 32
SHORTEST_KEY = 16  # characters of $HANDSELL_LOG_KEY
HASH_BYTES = 8
PREFIX = "id-"

IdHash = Callable[[str], str]


def make_id_hash(ids: str, key_file: Path) -> IdHash:
    """Return the function that `logging.ids` asks for: a keyed hash, or for "plain" the id itself."""
    if ids == "plain":
        return str
    key = read_key(key_file)
    return lambda id_: hash_id(id_, key)


def hash_id(id_: str, key: bytes) -> str:
    """Return the keyed hash of an id, such as id-83f2a91b0c4d5e6f."""
    digest = hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), key=key, digest_size=HASH_BYTES)
    return PREFIX + digest.hexdigest()


def read_key(key_file: Path) -> bytes:
    """Return the key of $HANDSELL_LOG_KEY, else that in the file, which is created with mode 600 at first.

    Without either, as in a container with read-only folders, this process has a key of its own. Raises ConfigError for
    a key that is too short, and for a damaged file.
    """
    given = os.environ.get(KEY, "")
    if given:
        if len(given) < SHORTEST_KEY:
            raise ConfigError(
                f"{KEY}: expected a random text of at least {SHORTEST_KEY} characters, got {len(given)}: "
                "`openssl rand -hex 32` prints one"
            )
        return hashlib.blake2b(given.encode(), digest_size=KEY_BYTES).digest()
    try:
        with contextlib.suppress(FileExistsError):
            _create(key_file)
        return bytes.fromhex(key_file.read_text())
    except ValueError as error:
        raise ConfigError(
            f"the key of ids in logs at {key_file} is damaged ({error}): remove it, or set {KEY}"
        ) from None
    except OSError as error:
        log.warning("%s cannot be used (%s): ids in logs have a key of this process; set %s", key_file, error, KEY)
        return _own_key()


@cache
def _own_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def _create(key_file: Path) -> None:
    """Create the file with all of its content, or raise FileExistsError."""
    key_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = key_file.with_name(f".{key_file.name}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(KEY_BYTES))
    try:
        os.link(temporary, key_file)
    finally:
        temporary.unlink()
