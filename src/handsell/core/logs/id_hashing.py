"""Keyed hashes of user and item ids for logs: equal ids can be joined, but not guessed without the deployment's key."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from handsell.core.errors import ConfigError

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

    Raises ConfigError for a key that is too short, or a file that cannot be used.
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
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot use the key of ids in logs at {key_file} ({error}): set {KEY}, or logging.ids to plain"
        ) from None


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
