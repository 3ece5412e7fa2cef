"""The bundle store: publish, verify, promote and roll back bundles.

    store = BundleStore(layout.bundles)
    staging = store.new_dir()                  # save every model into it
    bundle_id = store.publish(staging, manifest)
    store.promote(bundle_id)

A bundle is a folder with a manifest and never changes. `live.json` names the live bundle and those before it.
Promotion and rollback replace that file, so after a crash it has the old or the new state. In object storage they
replace it under the condition that nobody else has meanwhile.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from handsell.bundles.manifest import Manifest, read_manifest
from handsell.bundles.storage import LOCK_WAIT_S, STAGING, IsPart, Storage, open_storage
from handsell.core.errors import BundleError

POINTER = "live.json"
STALE_S = 86_400.0  # age from which an unfinished staging folder is removed
ID = re.compile(r"^[0-9A-Za-z][0-9A-Za-z_.-]{0,80}$")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The live bundle and its predecessors, oldest first; and what `prune` is removing or has removed last."""

    live: str | None = None
    previous: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class BundleStore:
    def __init__(self, root: str | Path | Storage, lock_wait_s: float = LOCK_WAIT_S):
        """`root`: a folder or a storage."""
        self._storage: Storage = open_storage(root, lock_wait_s) if isinstance(root, str | Path) else root
        self._root = self._storage.address

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
        return read_manifest(self._fetch(bundle_id, self._storage.fetch_manifest))

    def verify(self, bundle_id: str) -> Manifest:
        """Check the size and hash of every file; raise BundleError for the first that differs.

        A damaged copy in the cache of object storage is fetched again.
        """
        folder = self._fetch(bundle_id)
        try:
            manifest = read_manifest(folder)
            manifest.check(folder)
        except BundleError:
            again = self._storage.fetch_again(bundle_id)
            if again is None:
                raise
            manifest = read_manifest(again)
        return manifest

    def verify_part(self, bundle_id: str, part: str, is_part: IsPart) -> tuple[Manifest, Path]:
        """Fetch and check the files that `is_part`; return the manifest and a folder that may lack the others.

        `part` names them, such as `shard-0`. Raises BundleError for the first file that differs.
        """

        def check(afresh: bool) -> tuple[Manifest, Path]:
            folder = self._fetch(bundle_id, lambda name: self._storage.fetch_part(name, part, is_part, afresh))
            manifest = read_manifest(folder)
            manifest.check(folder, is_part)
            return manifest, folder

        try:
            return check(afresh=False)
        except BundleError:
            return check(afresh=True)

    def local_path(self, bundle_id: str) -> Path:
        """Return the bundle's folder on this machine; one in object storage is fetched once."""
        return self._fetch(bundle_id)

    def live(self) -> str | None:
        return self.pointer().live

    def pointer(self) -> Pointer:
        return self._parse(self._storage.read(POINTER))

    def _parse(self, raw: bytes | None) -> Pointer:
        if raw is None:
            return Pointer()
        try:
            state = json.loads(raw)
            return Pointer(state["live"], tuple(state["previous"]), tuple(state.get("removed", ())))
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{self._root}/{POINTER}: expected the name of the live bundle, it is not readable ({error!r}): "
                "remove it and promote a bundle"
            ) from None

    def _change_pointer(self, change: Callable[[Pointer], Pointer]) -> None:
        def apply(raw: bytes | None) -> bytes | None:
            before = self._parse(raw)
            after = change(before)
            return None if after == before else _to_json(after)

        self._storage.change(POINTER, apply)

    def promote(self, bundle_id: str, instead_of: str | None = "") -> None:
        """Verify a bundle and make it live; promoting the live one changes nothing.

        With `instead_of`, None for no bundle, raises BundleError if another bundle is live by now: a gate that has
        compared with one bundle says nothing about another.
        """
        self.verify(bundle_id)

        def change(now: Pointer) -> Pointer:
            if now.live == bundle_id:
                return now
            if instead_of != "" and now.live != instead_of:
                raise BundleError(
                    f"{bundle_id} was compared with {instead_of or 'no live bundle'}, and {now.live} has become live "
                    "meanwhile: train again, or promote it by its id"
                )
            if bundle_id in now.removed:
                raise BundleError(f"bundle {bundle_id!r} is being removed from {self._root}: promote another one")
            return Pointer(bundle_id, (*now.previous, now.live) if now.live else now.previous, now.removed)

        self._change_pointer(change)

    def rollback(self) -> str:
        """Make the previous bundle live again and return its id; missing and broken ones are skipped."""
        live: list[str] = []

        def change(now: Pointer) -> Pointer:
            before, skipped = list(now.previous), []
            while before:
                bundle_id = before.pop()
                try:
                    self.verify(bundle_id)
                except BundleError as error:
                    skipped.append(str(error))
                    continue
                live.append(bundle_id)
                return Pointer(bundle_id, tuple(before), now.removed)
            why = "; ".join(skipped) or "there is none"
            raise BundleError(
                f"rollback: expected a bundle that was live before {now.live}: {why}: promote one by its id"
            )

        self._change_pointer(change)
        return live[-1]

    def prune(self, keep: int, rollbacks: int = 1, needed: Iterable[str] = ()) -> tuple[str, ...]:
        """Remove all but the newest `keep` bundles, the live one and its last `rollbacks` predecessors.

        Bundles that are `needed`, such as those of experiments' arms, stay. Returns the removed ids.
        """
        if keep < 1:
            raise BundleError(f"prune: expected to keep at least 1 bundle, got {keep}: give --keep 1 or more")
        ids, needed, removed = self.list(), set(needed), list[str]()

        def change(now: Pointer) -> Pointer:
            predecessors = [i for i in now.previous if i in ids]
            last = predecessors[len(predecessors) - min(rollbacks, len(predecessors)) :]
            kept = {*needed, *ids[-keep:], now.live, *last}
            removed[:] = [i for i in ids if i not in kept]
            return Pointer(now.live, tuple(i for i in now.previous if i not in removed), tuple(removed))

        self._change_pointer(change)  # first: nobody can promote what is being removed
        for bundle_id in removed:
            self._storage.remove(bundle_id)
        self._storage.remove_unfinished()
        self._remove_stale_staging()
        return tuple(removed)

    def _fetch(self, bundle_id: str, fetch: Callable[[str], Path] | None = None) -> Path:
        try:
            if not ID.match(bundle_id):
                raise FileNotFoundError(bundle_id)
            return (fetch or self._storage.fetch)(bundle_id)
        except FileNotFoundError:
            known = ", ".join(self.list()[-5:]) or "none"
            raise BundleError(f"bundle {bundle_id!r} is not in {self._root}; the newest there: {known}") from None

    def write_pointer(self, pointer: Pointer) -> None:
        """Replace the pointer atomically, without any check; `promote` and `rollback` check."""
        self._storage.write(POINTER, _to_json(pointer))

    def _remove_stale_staging(self) -> None:
        for path in self._storage.local.glob(f"{STAGING}*"):
            if time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)


def _to_json(pointer: Pointer) -> bytes:
    return json.dumps({**asdict(pointer), "changed_us": time.time_ns() // 1000}, indent=1).encode()
