"""Copies of the live bundle: one whose scores identify it in every slate, and a corrupt one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.serving.load_generator import Response
from handsell.bundles.opening import open_bundle_storage, open_bundles
from handsell.bundles.storage import Storage
from handsell.bundles.store import BundleStore, Pointer
from handsell.config import Config

HIGH = 0.9  # lower bound of the scores of the copy
FOLLOW_S = 60.0
SETTLE_S = 5.0


@dataclass
class BundleVariants:
    """The live bundle, a copy with the same ranker calibrated to scores above HIGH, and a corrupt copy."""

    store: BundleStore
    storage: Storage
    live: str
    high: str
    corrupt: str

    @classmethod
    def create(cls, config: Config) -> BundleVariants:
        store, storage = open_bundles(config), open_bundle_storage(config)
        live = store.live()
        if live is None:
            raise SystemExit(f"no bundle of {config.name} is live: train one first")
        high, corrupt = _copy_with_high_scores(store, live, 1), _copy_with_high_scores(store, live, 2)
        ranker = store.local_path(corrupt) / "ranker" / "ranker.ubj"
        storage.write(f"{corrupt}/ranker/ranker.ubj", ranker.read_bytes()[:-100])
        return cls(store, storage, live, high, corrupt)

    def change_live_bundle(self, url: str) -> dict[str, Any]:
        """Promote the copy, roll back, make the corrupt one live, and restore the pointer.

        Returns `followed`, the seconds until the service reported each change, and the changes that it did not follow.
        """
        before, took = self.store.pointer(), {}
        try:
            self.store.promote(self.high)
            took["promote"] = _wait_until(url, lambda ready: ready["release"]["bundle"] == self.high)
            time.sleep(SETTLE_S)
            self.store.rollback()
            took["rollback"] = _wait_until(url, lambda ready: ready["release"]["bundle"] == self.live)
            time.sleep(SETTLE_S)
            self.store.write_pointer(Pointer(self.corrupt, (self.live,)))
            took["refuse"] = _wait_until(url, lambda ready: (ready["refused"] or {}).get("bundle") == self.corrupt)
            time.sleep(SETTLE_S)
        finally:
            self.store.write_pointer(before)
        return {"followed": took, "not followed": [name for name, seconds in took.items() if seconds is None]}

    def find_mixed(self, responses: Sequence[Response]) -> list[str]:
        """Describe responses whose scores are not those of the bundle that they name, or that name the corrupt one."""
        found = []
        for response in responses:
            if response.ok and not response.degraded:
                high = response.lowest_score >= HIGH
                if response.bundle not in (self.live, self.high) or high != (response.bundle == self.high):
                    found.append(f"{response.bundle} with scores from {response.lowest_score:.3f}")
        return found

    def remove(self) -> None:
        for bundle in (self.high, self.corrupt):
            self.storage.remove(bundle)


def _copy_with_high_scores(store: BundleStore, bundle: str, number: int) -> str:
    """Publish a copy of a bundle, `number` µs younger, whose scores are between HIGH and 1."""
    folder, manifest = store.new_dir(), store.show(bundle)
    shutil.copytree(store.local_path(bundle), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    path = folder / "ranker" / "calibration.json"
    knots = json.loads(path.read_text())
    path.write_text(json.dumps({**knots, "score": [HIGH + (1 - HIGH) * score for score in knots["score"]]}))
    later = manifest.model_copy(update={"created_us": manifest.created_us + number, "id": ""})
    return store.publish(folder, later)


def _wait_until(url: str, condition: Callable[[dict[str, Any]], bool]) -> float | None:
    """Seconds until five readiness responses in a row meet the condition (gateways take turns); None: not in time."""
    begun, in_a_row = time.monotonic(), 0
    while time.monotonic() - begun < FOLLOW_S:
        try:
            ready = httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False)
            in_a_row = in_a_row + 1 if ready.status_code == 200 and condition(ready.json()) else 0
        except httpx.HTTPError:
            in_a_row = 0
        if in_a_row >= 5:
            return round(time.monotonic() - begun, 1)
        time.sleep(0.1)
    return None
