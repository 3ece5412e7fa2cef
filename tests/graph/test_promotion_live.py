"""Promotion and rollback in a running service: no failed request, and no response that mixes two bundles."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_served_is_funnel import expected

from handsell.bundles.stages import load_stages
from handsell.bundles.store import BundleStore, Pointer
from handsell.core.paths import Layout
from impressions import wait_for_impressions
from serving_world import publish_other_bundle


@pytest.fixture
def store(world):
    return BundleStore(Layout(world.config.state).bundles)


def until(shop, what, limit_s=60):
    """Return the first readiness response that meets the condition."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        ready = shop.get("/readyz")
        assert ready.status_code == 200
        if what(ready.json()):
            return ready.json()
        time.sleep(0.1)
    raise TimeoutError(ready.text)


class Callers:
    """Threads that send requests while the block runs; `answers` are (user, response)."""

    def __init__(self, shop, threads=3):
        self.shop, self.threads, self.answers, self._stop = shop, threads, [], threading.Event()

    def _ask(self, thread):
        n = thread
        while not self._stop.is_set():
            user = f"u{n % 18}"
            self.answers.append((user, self.shop.get(f"/v1/users/{user}/recommendations?count=8")))
            n += self.threads

    def __enter__(self):
        self._pool = ThreadPoolExecutor(self.threads)
        self._asked = [self._pool.submit(self._ask, thread) for thread in range(self.threads)]
        return self

    def __exit__(self, *_):
        self._stop.set()
        for asked in self._asked:
            asked.result()
        self._pool.shutdown()


def test_promotion_and_rollback_under_load(shop, world, store):
    other = publish_other_bundle(world, seed=4)
    with Callers(shop) as callers:
        store.promote(other)
        until(shop, lambda ready: ready["release"]["bundle"] == other)
        store.rollback()
        until(shop, lambda ready: ready["release"]["bundle"] == world.bundle)
    assert {answer.status_code for _, answer in callers.answers} == {200}
    bodies = [(user, answer.json()) for user, answer in callers.answers]
    assert [body["degraded"] for _, body in bodies if body["degraded"]] == []
    funnels = {b: load_stages(store.local_path(b), world.config) for b in (world.bundle, other)}
    by_bundle = {b: [x for x in bodies if x[1]["release"]["bundle"] == b] for b in funnels}
    assert sum(map(len, by_bundle.values())) == len(bodies) and all(by_bundle.values())
    around = {bundle: [*answers[:5], *answers[-5:]] for bundle, answers in by_bundle.items()}  # the change
    named = [body["recommendation_id"] for answers in around.values() for _, body in answers]
    impressions = wait_for_impressions(world.config, named)
    for bundle, answers in around.items():
        for user, body in answers:
            impression = impressions[body["recommendation_id"]]
            assert impression["bundle"][0] == bundle
            items, scores = expected(funnels[bundle], world, user, impression["time"][0], 8)
            assert [i["item_id"] for i in body["items"]] == items
            assert [i["score"] for i in body["items"]] == pytest.approx(scores.tolist(), abs=1e-5)


def test_a_corrupt_bundle_is_refused_under_load(shop, world, store):
    other = publish_other_bundle(world, seed=9)
    path = store.local_path(other) / "ranker" / "ranker.ubj"
    path.write_bytes(path.read_bytes()[:-100])
    with Callers(shop) as callers:
        store.write_pointer(Pointer(other, (world.bundle,)))
        assert "ranker.ubj" in until(shop, lambda ready: ready["refused"])["refused"]["reason"]
        assert "handsell_bundle_refused" in shop.get("/metrics").text
        store.rollback()
        until(shop, lambda ready: not ready["refused"])
    assert {(a.status_code, a.json()["release"]["bundle"]) for _, a in callers.answers} == {(200, world.bundle)}
    assert not any(a.json()["degraded"] for _, a in callers.answers)
