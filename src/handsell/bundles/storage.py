"""Storage of bundles: a local folder, or any `pyarrow.fs` address with a local cache.

A storage holds folders and small files by name. A bundle appears only when it is complete: locally by a rename,
remotely because its manifest is uploaded last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from handsell.bundles.manifest import MANIFEST, list_files
from handsell.core.errors import BundleError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

LOCK_WAIT_S = 30.0
STAGING = ".staging-"  # prefix of unfinished folders


class Storage(Protocol):
    local: Path  # staging folders, and the cache of remote bundles

    def names(self) -> list[str]:
        """Return the names of the folders with a manifest."""
        ...

    def fetch(self, name: str) -> Path:
        """Return a local folder with the bundle's files; raise FileNotFoundError if there is no bundle."""
        ...

    def publish(self, staging: Path, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file atomically."""
        ...


class LocalStorage:
    def __init__(self, root: Path):
        self.local = root

    def names(self) -> list[str]:
        return sorted(p.parent.name for p in self.local.glob(f"*/{MANIFEST}") if not p.parent.name.startswith("."))

    def fetch(self, name: str) -> Path:
        if not (self.local / name).is_dir():
            raise FileNotFoundError(name)
        return self.local / name

    def publish(self, staging: Path, name: str) -> None:
        _remove_remains(self.local / name)
        staging.rename(self.local / name)
        _flush_folder(self.local)

    def remove(self, name: str) -> None:
        (self.local / name / MANIFEST).unlink(missing_ok=True)  # first: without a manifest it is no bundle
        shutil.rmtree(self.local / name, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        path = self.local / name
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, content: bytes) -> None:
        self.local.mkdir(parents=True, exist_ok=True)
        draft = self.local / f".{name}.{os.getpid()}"
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.local / name)
        _flush_folder(self.local)


class RemoteStorage:
    """Bundles on an object store, which replaces a small object atomically. Locks hold on this machine only."""

    def __init__(self, filesystem: FileSystem, root: str, cache: Path):
        self._fs, self._root, self.local = filesystem, PurePosixPath(root), cache

    def names(self) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        listed = self._fs.get_file_info(FileSelector(str(self._root), allow_not_found=True))
        folders = [entry.base_name for entry in listed if entry.type == FileType.Directory]
        return sorted(name for name in folders if self.read(f"{name}/{MANIFEST}") is not None)

    def fetch(self, name: str) -> Path:
        from pyarrow.fs import FileSelector, LocalFileSystem, copy_files

        kept = self.local / name
        if (kept / MANIFEST).exists():
            return kept
        if not self._fs.get_file_info(FileSelector(str(self._root / name), allow_not_found=True)):
            raise FileNotFoundError(name)
        draft = self.local / f"{STAGING}{name}-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        copy_files(str(self._root / name), str(draft), self._fs, LocalFileSystem())
        shutil.rmtree(kept, ignore_errors=True)
        draft.rename(kept)
        return kept

    def publish(self, staging: Path, name: str) -> None:
        for file in (*list_files(staging), MANIFEST):
            self._put(f"{name}/{file}", (staging / file).read_bytes())
        _remove_remains(self.local / name)
        staging.rename(self.local / name)

    def remove(self, name: str) -> None:
        self._fs.delete_file(str(self._root / name / MANIFEST))
        self._fs.delete_dir(str(self._root / name))
        shutil.rmtree(self.local / name, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(str(self._root / name)) as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        self._put(name, content)

    def _put(self, name: str, content: bytes) -> None:
        path = self._root / name
        self._fs.create_dir(str(path.parent), recursive=True)
        with self._fs.open_output_stream(str(path)) as stream:
            stream.write(content)


def open_storage(root: str | Path, cache: Path | None = None) -> Storage:
    """Open a folder, or an address such as s3://bucket/bundles; raise BundleError for an invalid address."""
    if "://" not in str(root):
        return LocalStorage(Path(root).absolute())
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(str(root))
    except (ValueError, OSError) as error:
        raise BundleError(
            f"bundles at {root}: expected a folder or an address of pyarrow.fs (s3://…, gs://…): {error}"
        ) from None
    if filesystem.type_name == "local":
        return LocalStorage(Path(path))
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return RemoteStorage(filesystem, path, cache or home / "handsell" / path.strip("/").replace("/", "_"))


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


def _remove_remains(folder: Path) -> None:
    """Remove the rest of a folder whose removal was interrupted."""
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
