"""Objects below one URI of object storage: read, write under a condition, upload, download, list, delete.

Credentials, region and endpoint come from the standard variables of each service, such as AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL, or from the role of the pod or machine. An object appears when
its upload is complete; there is no renaming.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from handsell.core.errors import ConfigError, StorageError

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError
    from obstore.store import from_url
except ImportError:  # of the extra `storage`
    obstore = None  # type: ignore[assignment]

SMALL = {"timeout": "3s", "connect_timeout": "2s"}  # a call about a small object, which is read while serving
LARGE = {"timeout": "600s", "connect_timeout": "5s"}
CHANGE_TRIES = 20
BLOCK = 8 << 20
CHECK = ".check"  # an object that `check` writes and deletes
REMEDIES = (
    ("NoSuchBucket", "the bucket does not exist: create it, or correct storage.uri or $HANDSELL_STORAGE"),
    ("169.254.", "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"),
    ("InvalidAccessKeyId", "the access key is unknown: check AWS_ACCESS_KEY_ID"),
    ("SignatureDoesNotMatch", "the secret key is wrong: check AWS_SECRET_ACCESS_KEY"),
    ("AccessDenied", "access is denied: allow this key to read, write, list and delete there"),
    ("403 Forbidden", "access is denied: allow this key to read, write, list and delete there"),
    ("401 Unauthorized", "the credentials were refused: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("error sending request", "it cannot be reached: check the network and AWS_ENDPOINT_URL"),
    ("timed out", "it does not answer in time: check the network and AWS_ENDPOINT_URL"),
    ("error decoding response", "it closed the connection: check the network and AWS_ENDPOINT_URL"),
)


class ObjectChanged(StorageError):
    """Another process has written the object since it was read."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The content of a small object, and the tag (ETag) of this version."""

    content: bytes
    tag: str


@dataclass(frozen=True, slots=True)
class ListedObject:
    name: str
    size: int
    modified: datetime


class Objects:
    """The objects below a URI. Every method raises StorageError where storage refuses a call or does not answer.

    Raises ConfigError without the package obstore.
    """

    def __init__(self, uri: str):
        if obstore is None:
            raise ConfigError(
                "storage.uri or $HANDSELL_STORAGE names object storage, but obstore is not installed: "
                "pip install 'handsell[storage]'"
            )
        self.uri = uri.rstrip("/")
        self._small = self._open(SMALL, tries=2, for_s=2)  # one that does not answer is not asked twice
        self._large = self._open(LARGE, tries=8, for_s=180)

    def _open(self, limits: dict[str, str], tries: int, for_s: int) -> Any:
        options: dict[str, Any] = {**limits, "allow_http": _uses_http()}
        retry: Any = {"max_retries": tries, "retry_timeout": timedelta(seconds=for_s)}
        try:
            open_any: Any = from_url  # typed for each service on its own
            return open_any(self.uri, client_options=options, retry_config=retry)
        except Exception as error:
            raise self._build_error(error) from None

    def read(self, name: str) -> StoredObject | None:
        """Return a small object; None if there is none."""
        return self.read_changed(name, None)

    def read_changed(self, name: str, known: StoredObject | None) -> StoredObject | None:
        """Return a small object, `known` itself if that is still the newest version; None if there is none."""
        options: Any = {"if_none_match": known.tag} if known is not None else {}
        try:
            found = obstore.get(self._small, name, options=options)
            return StoredObject(bytes(found.bytes()), str(found.meta["e_tag"]))
        except NotModifiedError:
            return known
        except Exception as error:
            if _is_missing(error):
                return None
            raise self._build_error(error) from None

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, whatever was there."""
        self._put(name, content, "overwrite")

    def write_if_same(self, name: str, content: bytes, known: StoredObject | None) -> None:
        """Write a small object if its newest version is `known`, None for no object; raises ObjectChanged."""
        self._put(name, content, "create" if known is None else {"e_tag": known.tag})

    def change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Replace a small object by what `change` returns for its content; None leaves it as it is.

        `change` is called again with the new content where another process has written meanwhile, so no change of
        either is lost. What it raises is passed on.
        """
        for _ in range(CHANGE_TRIES):
            known = self.read(name)
            content = change(None if known is None else known.content)
            if content is None:
                return
            try:
                self.write_if_same(name, content, known)
            except ObjectChanged:
                continue
            return
        raise ObjectChanged(f"object storage {self.uri}: {name} is changed again and again by others: try again later")

    def _put(self, name: str, content: bytes, mode: Any) -> None:
        try:
            obstore.put(self._small, name, content, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            raise ObjectChanged(f"object storage {self.uri}: another process has written {name} meanwhile") from None
        except Exception as error:
            raise self._build_error(error) from None

    def upload(self, name: str, path: Path) -> None:
        """Upload a file of any size; the object appears when it is complete."""
        try:
            obstore.put(self._large, name, path)
        except Exception as error:
            raise self._build_error(error) from None

    def download(self, name: str, path: Path) -> None:
        """Write an object of any size to a file; raises FileNotFoundError if there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                for block in obstore.get(self._large, name).stream(min_chunk_size=BLOCK):
                    file.write(block)
        except Exception as error:
            if _is_missing(error):
                raise FileNotFoundError(name) from None
            if isinstance(error, OSError):  # of this machine's disk
                raise
            raise self._build_error(error) from None

    def list(self, folder: str = "") -> Iterator[ListedObject]:
        """Yield the objects in a folder and all folders below it."""
        try:
            for some in obstore.list(self._large, folder or None):
                yield from (ListedObject(one["path"], one["size"], one["last_modified"]) for one in some)
        except Exception as error:
            raise self._build_error(error) from None

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is not an error."""
        for name in names:
            try:
                obstore.delete(self._small, name)
            except Exception as error:
                if not _is_missing(error):
                    raise self._build_error(error) from None

    def check(self) -> None:
        """Raise StorageError unless the folder can be listed, written and deleted from."""
        next(self.list(), None)
        self.write(CHECK, b"")
        self.delete([CHECK])

    def _build_error(self, error: Exception) -> StorageError:
        text = str(error)
        cause = next((remedy for word, remedy in REMEDIES if word in text), None)
        return StorageError(f"object storage {self.uri}: {cause or text.splitlines()[0][:300]}")


def _uses_http() -> bool:
    """Whether a server of one's own without TLS is configured."""
    return any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"))


def _is_missing(error: Exception) -> bool:
    """Whether the object is missing; a missing bucket is another error."""
    return isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)
