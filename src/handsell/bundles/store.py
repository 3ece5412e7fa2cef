"""The store of bundles: publish, verify, promote, roll back.

    store = BundleStore(layout.bundles)
    staging = store.new_dir()                  # save every model into it
    bundle_id = store.publish(staging, manifest)
    store.promote(bundle_id)

A bundle is a folder with a manifest, and never changes. `live.json` names the live one and those before
it; promotion and rollback replace that one small file, so a crash leaves the old or the new state.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from handsell.bundles.manifest import Manifest, read_manifest
from handsell.bundles.storage import LOCK_WAIT_S, STAGING, Storage, locked, open_storage
from handsell.core.errors import BundleError

POINTER = "live.json"
STALE_S = 86_400.0  # an unfinished staging folder older than this was left by a crash
ID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,80}$")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which bundle is live, and which were before it, oldest first."""

    live: str | None = None
    previous: tuple[str, ...] = ()


class BundleStore:
    def __init__(self, root: str | Path | Storage, cache: Path | None = None, lock_wait_s: float = LOCK_WAIT_S):
        """`root`: a folder, a `pyarrow.fs` address, or a storage; `cache`: where bundles of an address are kept."""
        self._storage: Storage = open_storage(root, cache) if isinstance(root, str | Path) else root
        self._root, self._wait_s = str(root), lock_wait_s

    def new_dir(self) -> Path:
        """An empty local folder to build a bundle in; without a manifest it is not a bundle."""
        path = self._storage.local / f"{STAGING}{uuid4().hex[:12]}"
        path.mkdir(parents=True)
        return path

    def publish(self, staging: Path, manifest: Manifest) -> str:
        """Hash the files, write the manifest last, and give the folder its name: the id."""
        sealed = manifest.sealed(staging)
        sealed.write(staging)
        if sealed.id in self._storage.names():  # same time, same bytes: it is that very bundle
            shutil.rmtree(staging)
            return sealed.id
        self._storage.publish(staging, sealed.id)
        return sealed.id

    def list(self) -> list[str]:
        """Ids of finished bundles, oldest first."""
        return self._storage.names()

    def show(self, bundle_id: str) -> Manifest:
        """The manifest, without looking at the files."""
        return read_manifest(self._fetch(bundle_id))

    def verify(self, bundle_id: str) -> Manifest:
        """Size and hash of every file; raises BundleError naming the file, what was expected and what was received."""
        folder = self._fetch(bundle_id)
        manifest = read_manifest(folder)
        manifest.check(folder)
        return manifest

    def local_path(self, bundle_id: str) -> Path:
        """The bundle's folder on this machine (fetched once from elsewhere)."""
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
                f"{self._root}/{POINTER} is expected to name the live bundle, it is not readable ({error!r}): "
                "remove it and promote a bundle"
            ) from None

    def promote(self, bundle_id: str) -> None:
        """Verify, then make live; promoting the live one changes nothing."""
        self.verify(bundle_id)
        with locked(self._storage.local, self._wait_s):
            now = self.pointer()
            if now.live == bundle_id:
                return
            before = (*now.previous, now.live) if now.live else now.previous
            self._point(Pointer(bundle_id, before))

    def rollback(self) -> str:
        """Make the previously live bundle live again; one that is gone or broken is skipped."""
        with locked(self._storage.local, self._wait_s):
            now = self.pointer()
            before, passed = list(now.previous), []
            while before:
                bundle_id = before.pop()
                try:
                    self.verify(bundle_id)
                except BundleError as error:
                    passed.append(str(error))
                    continue
                self._point(Pointer(bundle_id, tuple(before)))
                return bundle_id
        why = "; ".join(passed) or "none was live before"
        raise BundleError(f"rollback expects a bundle that was live before {now.live}: {why}: promote one by its id")

    def prune(self, keep: int) -> tuple[str, ...]:
        """Remove all but the newest `keep` bundles; the live one and its predecessor always stay."""
        if keep < 1:
            raise BundleError(f"prune expects to keep at least 1 bundle, got {keep}: give --keep 1 or more")
        with locked(self._storage.local, self._wait_s):
            now, ids = self.pointer(), self.list()
            there = [i for i in now.previous if i in ids]
            safe = {*ids[-keep:], now.live, *there[-1:]}
            gone = tuple(i for i in ids if i not in safe)
            for bundle_id in gone:
                self._storage.remove(bundle_id)
            if gone:
                self._point(Pointer(now.live, tuple(i for i in now.previous if i not in gone)))
            self._clear_stale()
        return gone

    def _fetch(self, bundle_id: str) -> Path:
        try:
            if not ID.match(bundle_id):
                raise FileNotFoundError(bundle_id)
            return self._storage.fetch(bundle_id)
        except FileNotFoundError:
            known = ", ".join(self.list()[-5:]) or "none"
            raise BundleError(f"bundle {bundle_id!r} is not in {self._root}; the newest there: {known}") from None

    def _point(self, pointer: Pointer) -> None:
        state = {"live": pointer.live, "previous": pointer.previous, "changed_us": time.time_ns() // 1000}
        self._storage.write(POINTER, json.dumps(state, indent=1).encode())

    def _clear_stale(self) -> None:
        for path in self._storage.local.glob(f"{STAGING}*"):
            if time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)
