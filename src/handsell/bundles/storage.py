"""Where bundles are kept: a local folder, or any `pyarrow.fs` address with a local cache in front.

A storage knows folders and small files by name; what they mean is the store's affair. On both kinds a
bundle appears only as a whole: by a rename locally, elsewhere because its manifest is uploaded last.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from handsell.bundles.manifest import MANIFEST, files_of
from handsell.core.errors import BundleError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

LOCK_WAIT_S = 30.0
STAGING = ".staging-"  # folders of this name are unfinished


class Storage(Protocol):
    local: Path  # staging, and the cache of what is elsewhere

    def names(self) -> list[str]:
        """Names of finished bundles (their manifest is there)."""
        ...

    def fetch(self, name: str) -> Path:
        """A local folder with the bundle's files; FileNotFoundError where there is none."""
        ...

    def publish(self, staging: Path, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file in one step: readers see the old or the new one, never a part."""
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
        _make_room(self.local / name)
        staging.rename(self.local / name)
        _flush_folder(self.local)

    def remove(self, name: str) -> None:
        (self.local / name / MANIFEST).unlink(missing_ok=True)  # from here on it is no bundle
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
    """On an object store the replacement of one small object is atomic; the lock holds on this machine only."""

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
        for file in (*files_of(staging), MANIFEST):
            self._put(f"{name}/{file}", (staging / file).read_bytes())
        _make_room(self.local / name)
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
    """A folder, or an address such as s3://bucket/bundles; raises BundleError for one that cannot be used."""
    if "://" not in str(root):
        return LocalStorage(Path(root).absolute())
    from pyarrow.fs import FileSystem

    try:
        filesystem, path = FileSystem.from_uri(str(root))
    except (ValueError, OSError) as error:
        raise BundleError(
            f"bundles at {root}: a folder or an address of pyarrow.fs is expected (s3://…, gs://…): {error}"
        ) from None
    if filesystem.type_name == "local":
        return LocalStorage(Path(path))
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return RemoteStorage(filesystem, path, cache or home / "handsell" / path.strip("/").replace("/", "_"))


@contextmanager
def locked(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One writer at a time on this machine; BundleError after wait_s. The lock dies with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=wait_s, poll_interval=0.02):
            yield
    except Timeout:
        raise BundleError(
            f"bundles in {folder} are being promoted or pruned by another process for {wait_s:.0f} s: wait for it, or "
            "end it, then try again"
        ) from None


def _make_room(folder: Path) -> None:
    """Clear what an interrupted removal has left under this name."""
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
