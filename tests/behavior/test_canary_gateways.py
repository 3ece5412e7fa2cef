"""Two gateways that listen on ports of their own, and the guard, without a cluster: the canary under HTTP load."""

import asyncio
import contextlib
import threading

import pytest

from canary_visitors import check_broken_canary, check_good_canary
from gateway_server import run_gateway
from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.state import StateFile
from handsell.serving.graph.bundle_watcher import BundleWatcher
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.guard_rails.arm_watcher import ArmWatcher
from handsell.serving.guard_rails.guard import Guard
from handsell.serving.guard_rails.reporter import OutcomeReporter
from serving_service import build_service, load_world_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def urls(canary_world):
    """Base URLs of two gateways in threads of this process, with a guard in another thread."""
    world, folder, stop = canary_world, Layout(canary_world.config.state).bundles, threading.Event()
    Layout(world.config.state).event_log.parent.mkdir(parents=True, exist_ok=True)
    with SqliteWriter(Layout(world.config.state).event_log) as log, contextlib.ExitStack() as running:
        guard = Guard(world.config, StateFile(folder), BundleStore(folder), open_reader(world.config))
        watch = threading.Thread(target=guard.run, args=(stop,))
        watch.start()
        running.callback(watch.join)
        running.callback(stop.set)
        yield [running.enter_context(start_gateway(world, log, guard)) for _ in range(2)]


def start_gateway(world, log, guard):
    """Return the context of a running gateway that follows bundles, arms and the guard."""
    folder = Layout(world.config.state).bundles
    service = build_service(world, LocalSink(log))

    def load(bundle):
        return load_world_bundle(world, service.metrics, bundle)

    async def send(counts, refused):
        await asyncio.to_thread(guard.report, counts, refused)

    watchers = [
        ArmWatcher(service, StateFile(folder), load),
        BundleWatcher(service, BundleStore(folder), load),
        OutcomeReporter(service, send),
    ]
    return run_gateway(service, watchers)


def test_a_broken_canary_is_rolled_back_under_load(canary_world, urls, canary_states):
    check_broken_canary(canary_world, urls, canary_states)


def test_a_good_canary_is_promoted_under_load(canary_world, urls, canary_states):
    check_good_canary(canary_world, urls, canary_states)
