"""Visitors who ask several gateways under load while a canary runs, and what must hold for their answers."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from handsell.bundles.store import BundleStore, Pointer
from handsell.cli.app import app
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.experiments.state import STATE, StateFile
from serving_world import publish_empty_bundle, publish_other_bundle, write_world

QUICK = "\n[canary]\nmin_slates = 60\nmax_click_loss = 0.8\n[canary.guard_rails]\nclick_window_s = 1.0\n"
LIMIT_S = 120.0
CANARY_PORT = 18_030


@pytest.fixture(scope="module")
def canary_world(tmp_path_factory):
    """The small deployment with short times for a canary."""
    written = write_world(tmp_path_factory.mktemp("canary"), CANARY_PORT)
    path = written.config.source
    path.write_text(path.read_text().replace("deadline_ms = 4000", "deadline_ms = 20000") + QUICK)
    return replace(written, config=load_config(path))


@pytest.fixture
def canary_states(canary_world):
    """The state of its experiments, restored after the test, and so is the live bundle."""
    folder = Layout(canary_world.config.state).bundles
    yield StateFile(folder)
    (folder / STATE).unlink(missing_ok=True)
    BundleStore(folder).write_pointer(Pointer(canary_world.bundle))


class Visitors:
    """Threads whose new users ask for a slate, and half of whom click, while the block runs."""

    def __init__(self, urls, name, threads=2):
        self._urls, self._name, self._threads, self._stop = urls, name, threads, threading.Event()
        self.answers = []  # time, status, answer

    def _visit(self, thread):
        rng, number = np.random.default_rng(thread), 0
        with httpx.Client(base_url=self._urls[thread % len(self._urls)], timeout=60) as client:
            while not self._stop.is_set():
                number += 1
                user = f"{self._name} {thread} {number}"
                answer = client.post("/v1/recommendations", json={"user_id": user, "count": 8, "surface": "email"})
                self.answers.append((time.monotonic(), answer.status_code, answer.json()))
                items = answer.json().get("items")
                if items and rng.random() < 0.5:
                    event = {"user_id": user, "item_id": items[0]["item_id"], "type": "play"}
                    event["recommendation_id"] = answer.json()["recommendation_id"]
                    client.post("/v1/events", json={"events": [event]}).raise_for_status()

    def __enter__(self):
        self._pool = ThreadPoolExecutor(self._threads)
        self._visits = [self._pool.submit(self._visit, thread) for thread in range(self._threads)]
        return self

    def __exit__(self, *_):
        self._stop.set()
        for visit in self._visits:
            visit.result()
        self._pool.shutdown()

    def wait_for_bundle(self, bundle):
        """Wait until the last answers of all gateways come from a bundle."""
        until, last = time.monotonic() + LIMIT_S, len(self.answers)
        while time.monotonic() < until:
            newest = self.answers[last:][-20:]
            if len(newest) == 20 and {body["release"]["bundle"] for _, _, body in newest} == {bundle}:
                return
            time.sleep(0.2)
        raise TimeoutError(f"not every gateway answers from {bundle}")

    def of_arm(self, arm):
        return [(at, body) for at, _, body in self.answers if body.get("arms", {}).get("canary") == arm]


def run(world, *args):
    done = CliRunner().invoke(app, ["bundles", args[0], str(world.config.source), *args[1:]])
    print(f"$ handsell bundles {args[0]} CONFIG {' '.join(args[1:])}\n{done.output}")
    assert done.exit_code == 0, done.output
    return done.output


def wait_for(states, condition):
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        if condition(found := states.read().canary):
            return found
        time.sleep(0.2)
    raise TimeoutError(found)


def check_broken_canary(world, urls, states):
    """A broken canary is rolled back on all gateways; control's answers are complete throughout."""
    broken = publish_empty_bundle(world)
    with Visitors(urls, "a") as visitors:
        run(world, "promote", broken, "--canary", "30%")
        canary = wait_for(states, lambda found: not found.is_running)
        ended = time.monotonic()
        visitors.wait_for_bundle(world.bundle)
        stopped = len(visitors.answers)
        run(world, "list")
        time.sleep(1)
    assert canary.state == "rolled_back" and canary.reason.startswith("short: "), canary
    assert {status for _, status, _ in visitors.answers} == {200}
    control, candidate = visitors.of_arm("control"), visitors.of_arm("candidate")
    assert control and all(len(body["items"]) == 8 and not body["degraded"] for _, body in control)
    assert candidate and {body["release"]["bundle"] for _, body in candidate} == {broken}
    after = [body for _, _, body in visitors.answers[stopped:]]
    assert after and {body["release"]["bundle"] for body in after} == {world.bundle}, "all gateways have stopped it"
    first = min(at for at, _ in candidate)
    print(f"first empty slate to rollback: {ended - first:.1f} s, {len(candidate)} of {len(visitors.answers)} answers")
    for url in urls:
        text = httpx.get(f"{url}/metrics", timeout=60).text
        assert re.search(rf'handsell_canary\{{bundle="{broken}",(replica="\w+",)?state="rolled_back"\}} 0\.0', text)


def check_good_canary(world, urls, states):
    """A good canary is promoted and then answers everywhere; no answer fails."""
    other = publish_other_bundle(world, seed=81)
    with Visitors(urls, "b") as visitors:
        run(world, "promote", other, "--canary", "30%", "--for", "10s")
        wait_for(states, lambda found: found.progress)
        run(world, "list")
        canary = wait_for(states, lambda found: not found.is_running)
        ended = time.monotonic()
        visitors.wait_for_bundle(other)
        run(world, "list")
    assert canary.state == "promoted" and "ratio at least" in canary.reason, canary
    assert BundleStore(Layout(world.config.state).bundles).live() == other
    assert {status for _, status, _ in visitors.answers} == {200}
    assert not any(body["degraded"] for _, _, body in visitors.answers)
    for arm, bundle in (("candidate", other), ("control", world.bundle)):
        answers = {body["release"]["bundle"] for at, body in visitors.of_arm(arm) if at < ended - 1}
        assert answers == {bundle}
