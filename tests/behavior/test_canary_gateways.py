"""Two gateways that listen on ports of their own, and the guard, without a cluster: the canary under HTTP load."""

import asyncio
import socket
import threading
import time

import pytest
import uvicorn

from canary_visitors import check_broken_canary, check_good_canary, write_canary_world
from handsell.bundles.store import BundleStore, Pointer
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.state import STATE, StateFile
from handsell.serving.graph.bundle_watcher import BundleWatcher
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.guard_rails.arm_watcher import ArmWatcher
from handsell.serving.guard_rails.guard import Guard
from handsell.serving.guard_rails.reporter import OutcomeReporter
from handsell.serving.http.api import build_api
from serving_service import build_service, load_world_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_canary_world(tmp_path_factory.mktemp("canary"), 18_031)


@pytest.fixture(scope="module")
def urls(world):
    """Base URLs of two gateways in threads of this process, with a guard in another thread."""
    folder, stop = Layout(world.config.state).bundles, threading.Event()
    Layout(world.config.state).event_log.parent.mkdir(parents=True, exist_ok=True)
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        guard = Guard(world.config, StateFile(folder), BundleStore(folder), open_reader(world.config))
        watch = threading.Thread(target=guard.run, args=(stop,))
        watch.start()
        servers = [start_gateway(world, log, guard) for _ in range(2)]
        yield [f"http://127.0.0.1:{port}" for _, _, port in servers]
        for server, thread, _ in servers:
            server.should_exit = True
            thread.join()
        stop.set()
        watch.join()


def start_gateway(world, log, guard):
    """Return a running server, its thread and its port."""
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
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_api(service, watchers), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    return server, thread, listener.getsockname()[1]


@pytest.fixture
def states(world):
    folder = Layout(world.config.state).bundles
    yield StateFile(folder)
    (folder / STATE).unlink(missing_ok=True)
    BundleStore(folder).write_pointer(Pointer(world.bundle))


def test_a_broken_canary_is_rolled_back_under_load(world, urls, states):
    check_broken_canary(world, urls, states)


def test_a_good_canary_is_promoted_under_load(world, urls, states):
    check_good_canary(world, urls, states)
