"""The bundle store: publish, verify, promote and roll back bundles.

    store = BundleStore(layout.bundles)
    staging = store.new_dir()                  # save every model into it
    bundle_id = store.publish(staging, manifest)
    store.promote(bundle_id)

A bundle is a folder with a manifest and never changes. `live.json` names the live bundle and those before it.
Promotion and rollback replace that file, so after a crash it has the old or the new state.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from handsell.bundles.manifest import Manifest, read_manifest
from handsell.bundles.storage import LOCK_WAIT_S, STAGING, Storage, lock_folder, open_storage
from handsell.core.errors import BundleError

POINTER = "live.json"
STALE_S = 86_400.0  # age from which an unfinished staging folder is removed
ID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,80}$")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The live bundle and its predecessors, oldest first."""

    live: str | None = None
    previous: tuple[str, ...] = ()


class BundleStore:
    def __init__(self, root: str | Path | Storage, cache: Path | None = None, lock_wait_s: float = LOCK_WAIT_S):
        """`root`: a folder, a `pyarrow.fs` address, or a storage; `cache`: local folder for remote bundles."""
        self._storage: Storage = open_storage(root, cache) if isinstance(root, str | Path) else root
        self._root, self._wait_s = str(root), lock_wait_s

    def new_dir(self) -> Path:
        """Return a new local folder to build a bundle in."""
        path = self._storage.local / f"{STAGING}{uuid4().hex[:12]}"
        path.mkdir(parents=True)
        return path

    def publish(self, staging: Path, manifest: Manifest) -> str:
        """Hash the files, write the manifest last, and rename the folder to the bundle's id; return the id."""
        sealed = manifest.seal(staging)
        sealed.write(staging)
        if sealed.id in self._storage.names():  # same time and contents: the same bundle
            shutil.rmtree(staging)
            return sealed.id
        self._storage.publish(staging, sealed.id)
        return sealed.id

    def list(self) -> list[str]:
        """Return the ids of complete bundles, oldest first."""
        return self._storage.names()

    def show(self, bundle_id: str) -> Manifest:
        """Return the manifest without checking the files."""
        return read_manifest(self._fetch(bundle_id))

    def verify(self, bundle_id: str) -> Manifest:
        """Check the size and hash of every file; raise BundleError for the first that differs."""
        folder = self._fetch(bundle_id)
        manifest = read_manifest(folder)
        manifest.check(folder)
        return manifest

    def local_path(self, bundle_id: str) -> Path:
        """Return the bundle's folder on this machine; a remote bundle is fetched once."""
        return self._fetch(bundle_id)

    def live(self) -> str | None:
        return self.pointer().live

    def pointer(self) -> Pointer:
        raw = self._storage.read(POINTER)
        if raw is None:
            return Pointer()
        try:
            state = json.loads(raw)
            return Pointer(state["live"], tuple(state["previous"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{self._root}/{POINTER}: expected the name of the live bundle, it is not readable ({error!r}): "
                "remove it and promote a bundle"
            ) from None

    def promote(self, bundle_id: str) -> None:
        """Verify a bundle and make it live; promoting the live one changes nothing."""
        self.verify(bundle_id)
        with lock_folder(self._storage.local, self._wait_s):
            now = self.pointer()
            if now.live == bundle_id:
                return
            before = (*now.previous, now.live) if now.live else now.previous
            self.write_pointer(Pointer(bundle_id, before))

    def rollback(self) -> str:
        """Make the previous bundle live again and return its id; missing and broken ones are skipped."""
        with lock_folder(self._storage.local, self._wait_s):
            now = self.pointer()
            before, skipped = list(now.previous), []
            while before:
                bundle_id = before.pop()
                try:
                    self.verify(bundle_id)
                except BundleError as error:
                    skipped.append(str(error))
                    continue
                self.write_pointer(Pointer(bundle_id, tuple(before)))
                return bundle_id
        why = "; ".join(skipped) or "there is none"
        raise BundleError(f"rollback: expected a bundle that was live before {now.live}: {why}: promote one by its id")

    def prune(self, keep: int, rollbacks: int = 1, needed: Iterable[str] = ()) -> tuple[str, ...]:
        """Remove all but the newest `keep` bundles, the live one and its last `rollbacks` predecessors.

        Bundles that are `needed`, such as those of experiments' arms, stay. Returns the removed ids.
        """
        if keep < 1:
            raise BundleError(f"prune: expected to keep at least 1 bundle, got {keep}: give --keep 1 or more")
        with lock_folder(self._storage.local, self._wait_s):
            now, ids = self.pointer(), self.list()
            predecessors = [i for i in now.previous if i in ids]
            kept = {
                *needed,
                *ids[-keep:],
                now.live,
                *predecessors[len(predecessors) - min(rollbacks, len(predecessors)) :],
            }
            removed = tuple(i for i in ids if i not in kept)
            for bundle_id in removed:
                self._storage.remove(bundle_id)
            if removed:
                self.write_pointer(Pointer(now.live, tuple(i for i in now.previous if i not in removed)))
            self._remove_stale_staging()
        return removed

    def _fetch(self, bundle_id: str) -> Path:
        try:
            if not ID.match(bundle_id):
                raise FileNotFoundError(bundle_id)
            return self._storage.fetch(bundle_id)
        except FileNotFoundError:
            known = ", ".join(self.list()[-5:]) or "none"
            raise BundleError(f"bundle {bundle_id!r} is not in {self._root}; the newest there: {known}") from None

    def write_pointer(self, pointer: Pointer) -> None:
        """Replace the pointer atomically, without any check; `promote` and `rollback` check."""
        state = {"live": pointer.live, "previous": pointer.previous, "changed_us": time.time_ns() // 1000}
        self._storage.write(POINTER, json.dumps(state, indent=1).encode())

    def _remove_stale_staging(self) -> None:
        for path in self._storage.local.glob(f"{STAGING}*"):
            if time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)
