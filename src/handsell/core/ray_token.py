"""The authentication token of a Ray cluster, in a file that only its owner can read.

Ray looks for it in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH and ~/.ray/auth_token, once per process. Environments contain
only the path: a value would be visible to every child process and in Ray's logs.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from handsell.core.errors import HandsellError

MODE, VALUE, PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def create_token(path: Path) -> Path:
    """Write a new token with mode 600 in a folder with mode 700; return the path."""
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
    """Return the token; raise HandsellError if it is missing, empty, or accessible to other users."""
    try:
        with path.open() as file:
            status, token = os.fstat(file.fileno()), file.read().strip()
    except OSError as error:
        raise HandsellError(f"cannot read Ray's token at {path}: {error.strerror}") from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 or status.st_uid != os.geteuid():
        raise HandsellError(
            f"Ray's token at {path} must be readable by its owner alone (mode 600), got mode {mode:o} and owner "
            f"{status.st_uid}: restart the cluster for a new token (`handsell down CONFIG`, then `handsell up CONFIG`)"
        )
    if not token:
        raise HandsellError(
            f"Ray's token at {path} is empty: restart the cluster (`handsell down CONFIG`, then `handsell up CONFIG`)"
        )
    return token


def find_token() -> str | None:
    """Return the token of the cluster of this process, from where Ray reads it; None where none is required."""
    if os.environ.get(MODE) != "token":
        return None
    if value := os.environ.get(VALUE):
        return value.strip()
    path = Path(os.environ.get(PATH) or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def token_environment(path: Path) -> dict[str, str]:
    """Environment variables that make Ray require and send the token at `path`; an empty value counts as unset."""
    return {MODE: "token", PATH: str(path), VALUE: ""}
