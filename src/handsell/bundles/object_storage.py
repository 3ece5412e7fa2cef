"""Bundles in object storage, with a local cache from which a running service goes on while storage does not answer."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from pathlib import Path

from filelock import FileLock

from handsell.bundles.manifest import MANIFEST, list_files, read_manifest
from handsell.bundles.storage import STAGING, Change, IsPart, put_in_place, remove_bundle, replace_content
from handsell.core.errors import StorageError
from handsell.storage.objects import Objects, StoredObject

log = logging.getLogger(__name__)

PARTS = ".parts"  # folder of bundles of which a shard needs its own files
MANIFESTS = ".manifests"  # folder of manifests whose bundles are not in the cache
KEPT = 6  # bundles in the cache besides those that the pointer and the state of experiments name
UNFINISHED_S = 86_400.0  # age from which files without a manifest are those of an interrupted upload


class ObjectStorage:
    """Bundles below a URI. `local` is the cache, which any number of processes of a machine share.

    With `keeps_last`, `read` returns the last known content of a small file where storage does not answer, which any
    process of this machine may have read: serving needs it, and nothing is decided by it that is then written.
    """

    def __init__(self, objects: Objects, cache: Path, keeps_last: bool = False):
        self.local, self.address, self._objects, self._keeps_last = cache, objects.uri, objects, keeps_last
        self._known: dict[str, StoredObject | None] = {}
        self._is_away = False

    def names(self) -> list[str]:
        found = (one.name.split("/") for one in self._objects.list())
        return sorted(parts[0] for parts in found if len(parts) == 2 and parts[1] == MANIFEST)

    def fetch(self, name: str) -> Path:
        kept = self.local / name
        self._fetch_once(name, kept)
        self._drop_unused(name)
        return kept

    def fetch_part(self, name: str, part: str, is_part: IsPart, afresh: bool = False) -> Path:
        """Fetch into a folder of the part's own, unless the whole bundle is in the cache."""
        whole, kept = self.local / name, self.local / PARTS / part / name
        if (whole / MANIFEST).exists() and not afresh:
            return whole
        if afresh:
            remove_bundle(kept)
        self._fetch_once(name, kept, is_part)
        for other in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            remove_bundle(other)
        return kept

    def _fetch_once(self, name: str, kept: Path, is_part: IsPart | None = None) -> None:
        if (kept / MANIFEST).exists():
            os.utime(kept)  # used: the cache keeps it
            return
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.parent / f".{name}.fetch"):  # one process of a machine fetches, the others wait for it
            if not (kept / MANIFEST).exists():
                self._download(name, kept, is_part)
        (kept.parent / f".{name}.fetch").unlink(missing_ok=True)

    def _download(self, name: str, kept: Path, is_part: IsPart | None) -> None:
        """Download a bundle, check every file against its manifest, and give the folder its name."""
        manifest = self._objects.read(f"{name}/{MANIFEST}")
        if manifest is None:
            raise FileNotFoundError(name)
        work = kept.parent / f"{STAGING}fetch-{name}"
        draft = work / name  # the name of the folder is part of what is checked
        shutil.rmtree(work, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / MANIFEST).write_bytes(manifest.content)
        about = read_manifest(draft)
        for file in about.files:
            if is_part is None or is_part(file):
                self._objects.download(f"{name}/{file}", draft / file)
        about.check(draft, is_part)
        put_in_place(draft, kept)
        shutil.rmtree(work, ignore_errors=True)

    def fetch_manifest(self, name: str) -> Path:
        if (self.local / name / MANIFEST).exists():
            return self.local / name
        found = self._objects.read(f"{name}/{MANIFEST}")
        if found is None:
            raise FileNotFoundError(name)
        folder = self.local / MANIFESTS / name
        replace_content(folder / MANIFEST, found.content)
        return folder

    def fetch_again(self, name: str) -> Path | None:
        remove_bundle(self.local / name)
        return self.fetch(name)

    def _drop_unused(self, fetched: str) -> None:
        """Remove bundles from the cache that have not been used for longest; files that are mapped stay readable."""
        named = b" ".join((self._read_cached(name) or b"") for name in ("live.json", "experiments.json"))
        cached = [path.parent for path in self.local.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
        free = [path for path in cached if path.name.encode() not in named and path.name != fetched]
        for path in sorted(free, key=lambda path: path.stat().st_mtime)[: max(len(free) - KEPT, 0)]:
            remove_bundle(path)

    def publish(self, staging: Path, name: str) -> None:
        self.upload(staging, name)
        put_in_place(staging, self.local / name)

    def upload(self, staging: Path, name: str) -> None:
        for file in (*list_files(staging), MANIFEST):  # the manifest last: without it there is no bundle
            self._objects.upload(f"{name}/{file}", staging / file)

    def remove(self, name: str) -> None:
        self._objects.delete([f"{name}/{MANIFEST}"])
        self._objects.delete([one.name for one in self._objects.list(name)])
        remove_bundle(self.local / name)

    def remove_unfinished(self) -> None:
        """Delete the files of bundles whose upload was interrupted more than a day ago."""
        complete = set(self.names())
        self._objects.delete(
            one.name
            for one in list(self._objects.list())
            if "/" in one.name
            and one.name.split("/")[0] not in complete
            and time.time() - one.modified.timestamp() > UNFINISHED_S
        )

    def read(self, name: str) -> bytes | None:
        try:
            found = self._objects.read_changed(name, self._known.get(name))
        except StorageError as error:
            cached = self._read_cached(name)
            if not self._keeps_last or (name not in self._known and cached is None):
                raise
            if not self._is_away:
                log.warning("%s; going on with what is known", error)
            self._is_away = True
            known = self._known.get(name)
            return known.content if known is not None else cached
        if self._is_away:
            log.warning("object storage %s answers again", self.address)
        self._is_away = False
        if self._keeps_last and found is not None and found is not self._known.get(name):
            self._cache(name, found.content)
        self._known[name] = found
        return None if found is None else found.content

    def _read_cached(self, name: str) -> bytes | None:
        path = self.local / name
        return path.read_bytes() if path.is_file() else None

    def _cache(self, name: str, content: bytes) -> None:
        """Keep the content for processes that start while storage is away; also when the object has been deleted."""
        if content != self._read_cached(name):
            with _CACHING:
                replace_content(self.local / name, content)

    def write(self, name: str, content: bytes) -> None:
        self._objects.write(name, content)

    def change(self, name: str, change: Change) -> None:
        self._objects.change(name, change)


_CACHING = threading.Lock()  # drafts are named by the process
