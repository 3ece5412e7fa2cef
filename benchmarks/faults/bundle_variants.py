"""A second bundle that differs from the live one in a way that every slate shows, and a corrupt one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.load_generator import Answer
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.paths import Layout

HIGH = 0.9  # scores of the twin lie above
FOLLOW_S = 60.0


@dataclass
class Twins:
    """The live bundle, its twin with the same ranker calibrated above HIGH, and a corrupt one."""

    store: BundleStore
    pointer: Path
    first: str
    twin: str
    corrupt: str

    @classmethod
    def of(cls, config: Config) -> Twins:
        store, pointer = BundleStore(Layout(config.state).bundles), Layout(config.state).bundles / "live.json"
        first = store.live()
        if first is None:
            raise SystemExit(f"no bundle of {config.name} is live: train one first")
        twin, corrupt = _lifted(store, first, 1), _lifted(store, first, 2)
        ranker = store.local_path(corrupt) / "ranker" / "ranker.ubj"
        ranker.write_bytes(ranker.read_bytes()[:-100])
        return cls(store, pointer, first, twin, corrupt)

    def play(self, url: str) -> dict:
        """Promote the twin, roll back, make the corrupt one live, go back; what was not followed in time."""
        before, unmoved, took = self.pointer.read_bytes(), [], {}
        try:
            for name, act, bundle in (
                ("promote", lambda: self.store.promote(self.twin), self.twin),
                ("rollback", self.store.rollback, self.first),
            ):
                act()
                took[name] = _until(url, lambda ready, bundle=bundle: ready["release"]["bundle"] == bundle)
                time.sleep(5)
            draft = self.pointer.with_suffix(".tmp")
            draft.write_text(json.dumps({"live": self.corrupt, "previous": [self.first]}))
            draft.replace(self.pointer)
            took["refuse"] = _until(url, lambda ready: (ready["refused"] or {}).get("bundle") == self.corrupt)
            time.sleep(5)
        finally:
            self.pointer.write_bytes(before)
        unmoved = [name for name, seconds in took.items() if seconds is None]
        return {"followed": took, "unmoved": unmoved}

    def mixed(self, answers: Sequence[Answer]) -> list[str]:
        """Answers whose scores are not those of the bundle that they name, or that come from the corrupt one."""
        found = []
        for answer in answers:
            if answer.ok and not answer.degraded:
                high = answer.least >= HIGH
                if answer.bundle not in (self.first, self.twin) or high != (answer.bundle == self.twin):
                    found.append(f"{answer.bundle} with scores from {answer.least:.3f}")
        return found

    def remove(self) -> None:
        for bundle in (self.twin, self.corrupt):
            shutil.rmtree(self.store.local_path(bundle))


def _lifted(store: BundleStore, bundle: str, number: int) -> str:
    """A copy of a bundle, `number` µs younger, whose scores lie between HIGH and 1."""
    folder, manifest = store.new_dir(), store.show(bundle)
    shutil.copytree(store.local_path(bundle), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    path = folder / "ranker" / "calibration.json"
    knots = json.loads(path.read_text())
    path.write_text(json.dumps({**knots, "score": [HIGH + (1 - HIGH) * score for score in knots["score"]]}))
    later = manifest.model_copy(update={"created_us": manifest.created_us + number, "id": ""})
    return store.publish(folder, later)


def _until(url: str, what) -> float | None:
    """Seconds until a readiness answer, five times in a row (gateways answer by turns), is as expected."""
    begun, row = time.monotonic(), 0
    while time.monotonic() - begun < FOLLOW_S:
        try:
            ready = httpx.get(f"{url}/readyz", timeout=5.0)
            row = row + 1 if ready.status_code == 200 and what(ready.json()) else 0
        except httpx.HTTPError:
            row = 0
        if row >= 5:
            return round(time.monotonic() - begun, 1)
        time.sleep(0.1)
    return None
