"""The token that Ray asks of every caller: created for its owner alone, and handed on by its path.

Ray reads it in the order RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token, once per process. Only the path goes
into environments: a value would be in every child's environment and in what Ray prints of it.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from handsell.core.errors import HandsellError

MODE, VALUE, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def create_token(path: Path) -> Path:
    """Write a new token that only this user can read, in a folder that only this user can change; returns the path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        path.unlink(missing_ok=True)  # an older token may have been read by somebody
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except OSError as error:
        raise HandsellError(f"cannot write Ray's token to {path}: {error.strerror}") from None
    return path


def read_token(path: Path) -> str:
    """The token; raises HandsellError where it is missing, or where it is not this user's alone."""
    try:
        with path.open() as file:
            status, token = os.fstat(file.fileno()), file.read().strip()
    except OSError as error:
        raise HandsellError(f"cannot read Ray's token at {path}: {error.strerror}") from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 or status.st_uid != os.geteuid():
        raise HandsellError(
            f"Ray's token at {path} must be readable by its owner alone (mode 600), got mode {mode:o} and owner "
            f"{status.st_uid}: restart the cluster for a new token (`make down`, then `make up`)"
        )
    if not token:
        raise HandsellError(f"Ray's token at {path} is empty: restart the cluster (`make down`, then `make up`)")
    return token


def token_environment(path: Path) -> dict[str, str]:
    """Variables with which Ray's programs ask for the token at `path` and show it. An empty value counts as unset."""
    return {MODE: "token", PATH: str(path), VALUE: ""}
