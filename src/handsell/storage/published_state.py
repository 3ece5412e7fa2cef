"""The part of the state folder that is published in object storage: data, features, compacted events, registry.

    state.json         for each part: its files, with size and SHA-256; replaced under a condition
    files/<sha256>     contents, which never change

A job pulls what is newer there, works in its own state folder, and pushes what it has changed after each step. What an
interrupted job has uploaded is not in state.json and thus invisible. Unchanged files are neither uploaded nor
downloaded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from handsell.config import Config
from handsell.core.errors import DataError, StorageError
from handsell.storage.objects import Objects, StoredObject

log = logging.getLogger(__name__)

STATE, FILES = "state.json", "files"
RECORD, LOCK, DRAFT = ".published.json", ".published.lock", ".pulling"
REGISTRY, KEYS = "feast/registry.db", "data/keys"  # what serving needs besides bundles
PARTS = (
    "catalog", "interactions", "truth", "data", KEYS, "compacted", "features", "requests", "snapshot", REGISTRY,
    "completed",
)  # fmt: skip
PULL_TRIES = 5  # files of a version that is replaced meanwhile are deleted
UNLISTED_S = 3_600.0  # a job uploads files for at most this long before it lists them

Files = dict[str, list]  # path below the state folder → [size, SHA-256, time of the last change in ns]


class PublishedState:
    """The published parts of one deployment, and the copies in its state folder; without object storage, nothing."""

    def __init__(self, uri: str | None, folder: Path):
        self._objects = None if uri is None else Objects(uri)
        self._folder = folder
        self._known: StoredObject | None = None  # state.json, as last read

    def pull(self, parts: Sequence[str] = PARTS) -> list[str]:
        """Replace the local copies of parts that are newer in object storage; return the names of the parts.

        A part that has changed locally, but not in object storage, stays as it is: `push` publishes it.
        """
        if self._objects is None:
            return []
        for left in reversed(range(PULL_TRIES)):
            there = self._read(self._objects)
            if not self._find_newer(there, parts):
                return []  # without the lock: nobody waits while storage does not answer
            with self._lock():
                try:
                    return self._pull(self._objects, there, parts)
                except FileNotFoundError as error:
                    if not left:
                        raise DataError(
                            f"object storage {self._objects.uri} lacks {error}, which {STATE} lists: restore a backup, "
                            f"or remove {STATE} and run `handsell train CONFIG` to compute everything again"
                        ) from None
        raise AssertionError("unreachable")

    def _find_newer(self, there: dict[str, Files], parts: Sequence[str]) -> list[str]:
        record = self._read_record()
        return [part for part in parts if part in there and _version(there[part]) != _version(record.get(part))]

    def _pull(self, objects: Objects, there: dict[str, Files], parts: Sequence[str]) -> list[str]:
        record, newer = self._read_record(), self._find_newer(there, parts)
        for part in newer:
            files, kept = there[part], record.pop(part, {})
            draft = self._folder / DRAFT
            shutil.rmtree(draft, ignore_errors=True)
            for name, entry in files.items():
                self._fetch(objects, name, entry, draft / name, kept)
            self._exchange(part, draft)  # if it is interrupted, the record still has the former version: it is repeated
            record[part] = files
            self._write_record(record)
        shutil.rmtree(self._folder / DRAFT, ignore_errors=True)
        return newer

    def _fetch(self, objects: Objects, name: str, entry: list, target: Path, kept: Files) -> None:
        """Put a file in place: a link to the local one if that is the same, else the object."""
        size, digest, changed = entry
        target.parent.mkdir(parents=True, exist_ok=True)
        local = self._folder / name
        if name in kept and kept[name][1] == digest and _is_unchanged(local, kept[name]):
            os.link(local, target)
            return
        objects.download(f"{FILES}/{digest}", target)
        if target.stat().st_size != size or _digest(target) != digest:
            raise DataError(f"object storage {objects.uri}: {name} is damaged: restore a backup, or compute it again")
        os.utime(target, ns=(changed, changed))

    def _exchange(self, part: str, draft: Path) -> None:
        """Put the new files of a part in the place of the old ones; parts inside it stay."""
        for other in _list_inner(part):
            if (self._folder / other).exists():
                (draft / other).parent.mkdir(parents=True, exist_ok=True)
                (self._folder / other).rename(draft / other)
        fresh, old = draft / part, self._folder / part
        fresh.parent.mkdir(parents=True, exist_ok=True)
        old.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir():
            aside = self._folder / f"{DRAFT}-old"
            shutil.rmtree(aside, ignore_errors=True)
            old.rename(aside)
            fresh.mkdir(exist_ok=True)
            fresh.rename(old)
            shutil.rmtree(aside)
        elif fresh.exists():
            fresh.replace(old)

    def push(self, parts: Sequence[str] = PARTS, force: bool = False) -> list[str]:
        """Upload the files of parts that have changed, then list them all at once; return the names of the parts.

        Raises StorageError if another job has changed one of them since the last `pull`. With `force`, what is local
        replaces what is published, whatever that is.
        """
        if self._objects is None:
            return []
        with self._lock():
            record = self._read_record()
            now = {part: self._list_local(part, record.get(part, {})) for part in parts}
            changed = {
                part: files for part, files in now.items() if force or _version(files) != _version(record.get(part))
            }
            if changed:
                replaced = self._publish(self._objects, changed, None if force else record)
                self._write_record({**record, **changed})
                self._objects.delete(f"{FILES}/{digest}" for digest in replaced)
        return list(changed)

    def _publish(self, objects: Objects, changed: dict[str, Files], base: dict[str, Files] | None) -> set[str]:
        """Return the hashes of contents that nothing lists any more."""
        uploaded: set[str] = set()
        replaced: set[str] = set()

        def change(raw: bytes | None) -> bytes:
            there = _parse(raw, objects.uri)
            for part in changed:
                expected = base.get(part) if base is not None else there.get(part)
                if _version(there.get(part)) not in (_version(expected), _version(changed[part])):
                    raise StorageError(
                        f"object storage {objects.uri}: another job has changed {part!r} meanwhile: run the command "
                        "again, it begins with the newest state"
                    )
            before = _list_digests(there)
            for files in changed.values():
                for name, (_, digest, _) in files.items():
                    if digest not in before and digest not in uploaded:
                        objects.upload(f"{FILES}/{digest}", self._folder / name)
                        uploaded.add(digest)
            after = {part: files for part, files in {**there, **changed}.items() if files}
            replaced.clear()
            replaced.update(before - _list_digests(after))
            return json.dumps({"version": 1, "parts": after}).encode()

        objects.change(STATE, change)
        return replaced

    def remove_unlisted(self, older_s: float = UNLISTED_S) -> int:
        """Delete contents that interrupted jobs have left; return how many are younger, and stay."""
        if self._objects is None:
            return 0
        listed, left, old = _list_digests(self._read(self._objects)), 0, []
        for one in self._objects.list(FILES):
            if one.name.rpartition("/")[2] in listed:
                continue
            if time.time() - one.modified.timestamp() > older_s:
                old.append(one.name)
            else:
                left += 1
        self._objects.delete(old)
        return left

    def is_empty(self) -> bool:
        return self._objects is None or not self._read(self._objects)

    def _read(self, objects: Objects) -> dict[str, Files]:
        self._known = objects.read_changed(STATE, self._known)
        return _parse(None if self._known is None else self._known.content, objects.uri)

    def _list_local(self, part: str, known: Files) -> Files:
        """Return the files of a part without parts inside it; unchanged ones are not read again."""
        root, files = self._folder / part, {}
        inner = tuple(f"{other}/" for other in _list_inner(part))
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            hidden = any(piece.startswith(".") for piece in path.relative_to(self._folder).parts)
            if hidden or name.startswith(inner) or path.suffix in (".new", ".lock"):
                continue
            if path.is_file() and not path.is_symlink():
                about = path.stat()
                entry = known.get(name)
                same = entry is not None and _is_unchanged(path, entry)
                digest = entry[1] if entry is not None and same else _digest(path)
                files[name] = [about.st_size, digest, about.st_mtime_ns]
        return files

    def _has_files(self, part: str) -> bool:
        root = self._folder / part
        return root.is_file() or any(path.is_file() for path in root.rglob("*"))

    def _lock(self) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / LOCK, mode=0o600)

    def _read_record(self) -> dict[str, Files]:
        """Return what the local copies were when they were last equal to those in object storage."""
        try:
            found = json.loads((self._folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        record = found["parts"] if found.get("uri") == self._uri else {}
        # a part without files was lost, with its disk or in an exchange that was interrupted
        return {part: files for part, files in record.items() if not files or self._has_files(part)}

    def _write_record(self, record: dict[str, Files]) -> None:
        draft = self._folder / f"{RECORD}.new"
        draft.write_text(json.dumps({"uri": self._uri, "parts": record}), encoding="utf-8")
        draft.replace(self._folder / RECORD)

    @property
    def _uri(self) -> str:
        return "" if self._objects is None else self._objects.uri


def open_published_state(config: Config) -> PublishedState:
    return PublishedState(config.storage_uri, config.state)


@contextmanager
def synchronize(config: Config, push: bool = True) -> Iterator[None]:
    """Pull the newest state before the block, and push what has changed after it, unless it fails."""
    state = open_published_state(config)
    state.pull()
    yield
    if push:
        state.push()


def _parse(raw: bytes | None, uri: str) -> dict[str, Files]:
    if raw is None:
        return {}
    try:
        found: dict[str, Any] = json.loads(raw)
        if found["version"] == 1:
            return found["parts"]
        cause = f"version {found['version']}, this handsell reads version 1"
    except (ValueError, KeyError, TypeError) as error:
        cause = repr(error)
    raise DataError(f"object storage {uri}: expected the list of published files in {STATE}, got {cause}")


def _list_inner(part: str) -> list[str]:
    """Return the parts inside a part, which are published on their own."""
    return [other for other in PARTS if other.startswith(f"{part}/")]


def _version(files: Files | None) -> list:
    return sorted((name, entry[1]) for name, entry in (files or {}).items())


def _list_digests(parts: dict[str, Files]) -> set[str]:
    return {entry[1] for files in parts.values() for entry in files.values()}


def _is_unchanged(path: Path, entry: list) -> bool:
    try:
        about = path.stat()
    except FileNotFoundError:
        return False
    return [about.st_size, about.st_mtime_ns] == [entry[0], entry[2]]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
