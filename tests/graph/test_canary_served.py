"""Two gateways on a cluster, under load: a broken canary is rolled back on both, a good one is promoted."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

import serving_world
from conftest import wait_until_ready
from handsell.bundles.store import BundleStore, Pointer
from handsell.cli.app import app
from handsell.core.paths import Layout
from handsell.experiments.state import STATE, StateFile
from serving_world import open_rows, publish_empty_bundle, publish_other_bundle, write_world

PORT = 18_030
QUICK = "\n[canary]\nmin_slates = 60\nmax_click_loss = 0.8\n[canary.guard_rails]\nclick_window_s = 1.0\n"
LIMIT_S = 120.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    written = write_world(tmp_path_factory.mktemp("canary"), PORT)
    path = written.config.source
    path.write_text(path.read_text().replace("deadline_ms = 4000", "deadline_ms = 20000") + QUICK)
    return written


@pytest.fixture(scope="module")
def url(ray_cluster, world):
    """Base URL of an application with two gateways."""
    from ray import cloudpickle, serve

    from handsell.serving.graph.deployments import STAGE_DEPLOYMENTS, EventLogDeployment
    from handsell.serving.graph.gateway import Gateway
    from handsell.serving.guard_rails.deployment import ExperimentGuardDeployment
    from handsell.serving.http.app import bind

    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    source = str(world.config.source)
    log = bind(EventLogDeployment, source)
    stages = {stage: bind(deployment, source, "live") for stage, deployment in STAGE_DEPLOYMENTS.items()}
    guard = bind(ExperimentGuardDeployment, source)
    gateways = Gateway.options(num_replicas=2)
    serve.run(bind(gateways, source, "live", log, stages, open_rows, None, guard), name="canary", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60) as client:
        wait_until_ready(client)
    yield f"http://127.0.0.1:{PORT}"
    serve.delete("canary")
    serve.shutdown()


@pytest.fixture
def states(world):
    folder = Layout(world.config.state).bundles
    yield StateFile(folder)
    (folder / STATE).unlink(missing_ok=True)
    BundleStore(folder).write_pointer(Pointer(world.bundle))


class Visitors:
    """Threads whose new users ask for a slate, and half of whom click, while the block runs."""

    def __init__(self, url, name, threads=2):
        self._url, self._name, self._threads, self._stop = url, name, threads, threading.Event()
        self.answers = []  # time, status, answer

    def _visit(self, thread):
        rng, number = np.random.default_rng(thread), 0
        with httpx.Client(base_url=self._url, timeout=60) as client:
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


def test_a_broken_canary_is_rolled_back_under_load(world, url, states):
    broken = publish_empty_bundle(world)
    with Visitors(url, "a") as visitors:
        run(world, "promote", broken, "--canary", "30%")
        canary = wait_for(states, lambda found: not found.is_running)
        ended = time.monotonic()
        time.sleep(5)
        run(world, "list")
    assert canary.state == "rolled_back" and canary.reason.startswith("short: "), canary
    assert {status for _, status, _ in visitors.answers} == {200}
    control, candidate = visitors.of_arm("control"), visitors.of_arm("candidate")
    assert control and all(len(body["items"]) == 8 and not body["degraded"] for _, body in control)
    assert candidate and {body["release"]["bundle"] for _, body in candidate} == {broken}
    assert not [at for at, _ in candidate if at > ended + 3], "both gateways have stopped it"
    after = [body for at, _, body in visitors.answers if at > ended + 3]
    assert after and {body["release"]["bundle"] for body in after} == {world.bundle}
    first = min(at for at, _ in candidate)
    print(f"first empty slate to rollback: {ended - first:.1f} s, {len(candidate)} of {len(visitors.answers)} answers")
    text = httpx.get(f"{url}/metrics", timeout=60).text
    assert f'handsell_canary{{bundle="{broken}",state="rolled_back"}} 0.0' in text


def test_a_good_canary_is_promoted_under_load(world, url, states):
    other = publish_other_bundle(world, seed=81)
    with Visitors(url, "b") as visitors:
        run(world, "promote", other, "--canary", "30%", "--for", "10s")
        wait_for(states, lambda found: found.progress)
        run(world, "list")
        canary = wait_for(states, lambda found: not found.is_running)
        ended = time.monotonic()
        time.sleep(6)
        run(world, "list")
    assert canary.state == "promoted" and "ratio at least" in canary.reason, canary
    assert BundleStore(Layout(world.config.state).bundles).live() == other
    assert {status for _, status, _ in visitors.answers} == {200}
    assert not any(body["degraded"] for _, _, body in visitors.answers)
    for arm, bundle in (("candidate", other), ("control", world.bundle)):
        answers = {body["release"]["bundle"] for at, body in visitors.of_arm(arm) if at < ended - 1}
        assert answers == {bundle}
    assert {body["release"]["bundle"] for at, _, body in visitors.answers if at > ended + 4} == {other}
