"""Storage of bundles: a local folder, or object storage with a local cache.

A storage holds folders and small files by name. A bundle appears only when it is complete: locally by a rename,
in object storage because its manifest is uploaded last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from handsell.bundles.manifest import MANIFEST
from handsell.core.errors import BundleError

LOCK_WAIT_S = 30.0
STAGING = ".staging-"  # prefix of unfinished folders

Change = Callable[[bytes | None], bytes | None]
IsPart = Callable[[str], bool]  # by the path of a file in the bundle


class Storage(Protocol):
    local: Path  # staging folders, and the cache of bundles in object storage
    address: str

    def names(self) -> list[str]:
        """Return the names of the folders with a manifest."""
        ...

    def fetch(self, name: str) -> Path:
        """Return a local folder with the bundle's files; raise FileNotFoundError if there is no bundle."""
        ...

    def fetch_part(self, name: str, part: str, is_part: IsPart, afresh: bool = False) -> Path:
        """Return a local folder with at least the bundle's files that `is_part`; raise FileNotFoundError.

        `part` names them; `afresh` replaces a local copy.
        """
        ...

    def fetch_manifest(self, name: str) -> Path:
        """Return a local folder with the bundle's manifest; raise FileNotFoundError if there is no bundle."""
        ...

    def fetch_again(self, name: str) -> Path | None:
        """Replace a damaged local copy and return it; None where the local folder is the original."""
        ...

    def publish(self, staging: Path, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def remove_unfinished(self) -> None:
        """Remove what interrupted uploads have left."""
        ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file atomically."""
        ...

    def change(self, name: str, change: Change) -> None:
        """Replace a small file by what `change` returns for its content; None leaves it as it is.

        No change of another process is lost: `change` sees it.
        """
        ...


class LocalStorage:
    def __init__(self, root: Path, lock_wait_s: float = LOCK_WAIT_S):
        self.local, self.address, self._wait_s = root, str(root), lock_wait_s

    def names(self) -> list[str]:
        return sorted(p.parent.name for p in self.local.glob(f"*/{MANIFEST}") if not p.parent.name.startswith("."))

    def fetch(self, name: str) -> Path:
        if not (self.local / name).is_dir():
            raise FileNotFoundError(name)
        return self.local / name

    def fetch_part(self, name: str, part: str, is_part: IsPart, afresh: bool = False) -> Path:
        return self.fetch(name)

    def fetch_manifest(self, name: str) -> Path:
        return self.fetch(name)

    def fetch_again(self, name: str) -> Path | None:
        return None

    def publish(self, staging: Path, name: str) -> None:
        put_in_place(staging, self.local / name)

    def remove(self, name: str) -> None:
        remove_bundle(self.local / name)

    def remove_unfinished(self) -> None:
        pass  # unfinished folders are beside the bundles, see `STAGING`

    def read(self, name: str) -> bytes | None:
        path = self.local / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, content: bytes) -> None:
        replace_content(self.local / name, content)
        _flush_folder(self.local)

    def change(self, name: str, change: Change) -> None:
        with lock_folder(self.local, self._wait_s):
            content = change(self.read(name))
            if content is not None:
                self.write(name, content)


def open_storage(root: str | Path, lock_wait_s: float = LOCK_WAIT_S) -> Storage:
    """Open a folder as a storage."""
    return LocalStorage(Path(root).absolute(), lock_wait_s)


@contextmanager
def lock_folder(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock against other writers on this machine; raise BundleError if it is still taken after `wait_s`.

    The kernel releases the lock when the process ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=wait_s, poll_interval=0.02):
            yield
    except Timeout:
        raise BundleError(
            f"bundles in {folder}: another process has promoted or pruned for {wait_s:.0f} s: wait for it, or end it, "
            "then try again"
        ) from None


def put_in_place(staging: Path, folder: Path) -> None:
    """Give a complete folder its name, in the place of the rest of one whose removal was interrupted."""
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    _flush_folder(folder.parent)


def remove_bundle(folder: Path) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)  # first: without a manifest it is no bundle
    shutil.rmtree(folder, ignore_errors=True)


def replace_content(path: Path, content: bytes) -> None:
    """Replace a small file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
