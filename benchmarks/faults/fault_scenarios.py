"""Fault scenarios: what is done to a graph under load, and the checks that its responses must pass."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from benchmarks.faults.bundle_variants import BundleVariants
from benchmarks.faults.fault_targets import OnlineStore, kill, slow_down
from benchmarks.faults.slo_checks import (
    SloCheck,
    check_failures_are_shed,
    check_flagged,
    check_no_failures,
    check_note_is_empty,
    check_only_in_flight_failed,
    check_p99,
    check_recovery,
    check_success_share,
)  # fmt: skip
from benchmarks.faults.store_servers import StoreServers
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.load_generator import Load

STAGES = ("Candidates", "Ranking", "Reranking")
JSON = {"content-type": "application/json"}
LOAD_FACTOR = 5  # of the load step
SLOW_S = 0.5
REPLACED_S = 60.0
STORE_SLOW_S = 1.0  # longer than a request waits for the store; shorter locks only add latency
BAD_REQUESTS = {
    "NaN": b'{"user_id":"u","count":NaN}',
    "10 MB": b'{"user_id":"' + b"x" * 10_000_000 + b'"}',
    "k = 1e9": b'{"user_id":"u","count":1000000000}',
    "deep JSON": b'{"session":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "bad UTF-8": b'{"user_id":"\xff\xfe"}',
}


@dataclass
class ScenarioContext:
    """A graph under steady load, and what a scenario records besides the responses."""

    graph: GraphProcesses
    load: Load
    rate: float  # requests per second
    min_replicas: Mapping[str, int]  # by deployment, of a graph that is complete
    bundles: BundleVariants | None = None
    stores: StoreServers | None = None  # of the layout without a shared folder
    notes: dict[str, Any] = field(default_factory=dict)
    begun: float = 0.0  # start of the fault

    def has_stopped_process(self) -> bool:
        """Return True while a process that the scenario stopped has not been replaced."""
        return psutil.pid_exists(self.notes.get("stopped", -1))


Injection = Callable[[ScenarioContext], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class FaultScenario:
    """`inject` is entered when the fault begins and left when it ends."""

    name: str
    inject: Injection
    checks: tuple[SloCheck, ...]
    lasts: bool = False  # True: the fault is held for --seconds; False: it is a single action


# -- faults -----------------------------------------------------------------------------------------------------


def inject_kill(name: str) -> Injection:
    """SIGKILL of the oldest process of that name."""

    @contextlib.contextmanager
    def inject(context: ScenarioContext) -> Iterator[None]:
        process = context.graph.find_oldest(name)
        context.begun = kill(process)
        process.wait(10)
        context.notes["gone after s"] = round(time.monotonic() - context.begun, 3)
        yield

    return inject


def inject_stop(name: str) -> Injection:
    """SIGSTOP without a later SIGCONT: the health check has to replace the process."""

    @contextlib.contextmanager
    def inject(context: ScenarioContext) -> Iterator[None]:
        process = context.graph.find_oldest(name)
        process.suspend()
        context.begun = time.monotonic()
        context.notes["stopped"] = process.pid
        yield

    return inject


def inject_slow(name: str) -> Injection:
    """Stopped for 500 ms, running for 100 ms, in turns."""

    @contextlib.contextmanager
    def inject(context: ScenarioContext) -> Iterator[None]:
        context.begun = time.monotonic()
        with slow_down(context.graph.find_oldest(name), SLOW_S, SLOW_S / 5):
            yield

    return inject


def inject_store(how: str) -> Injection:
    """The online store is `locked`, `slow` or `gone`."""

    @contextlib.contextmanager
    def inject(context: ScenarioContext) -> Iterator[None]:
        context.begun = time.monotonic()
        store = OnlineStore(context.graph)
        with store.slow(STORE_SLOW_S, STORE_SLOW_S / 5) if how == "slow" else getattr(store, how)():
            yield

    return inject


def inject_away(name: str) -> Injection:
    """SIGKILL of PostgreSQL, Redis or S3; it is started again at the end."""

    @contextlib.contextmanager
    def inject(context: ScenarioContext) -> Iterator[None]:
        assert context.stores is not None
        server = context.stores.find(name)
        context.begun = time.monotonic()
        server.kill()
        try:
            yield
        finally:
            server.start()

    return inject


@contextlib.contextmanager
def inject_silent_storage(context: ScenarioContext) -> Iterator[None]:
    """S3 accepts connections and does not answer (SIGSTOP); a gateway is killed, and its successor starts meanwhile."""
    assert context.stores is not None
    server = context.stores.s3.server.process
    assert server is not None
    server.suspend()
    try:
        with inject_kill("Gateway")(context):
            until = time.monotonic() + REPLACED_S
            time.sleep(1)  # until Serve's status reports it
            while context.graph.count_running().get("Gateway", 0) < 2 and time.monotonic() < until:
                time.sleep(0.5)
            context.notes["replaced after s"] = round(time.monotonic() - context.begun, 1)
            context.notes["not replaced"] = context.graph.count_running().get("Gateway", 0) < 2
            yield
    finally:
        server.resume()


@contextlib.contextmanager
def inject_load_step(context: ScenarioContext) -> Iterator[None]:
    """Multiply the load; the times at which replicas were added go into the notes."""
    before, since = context.graph.count_running(), time.monotonic()

    def note_new_replicas(counts: dict[str, int]) -> None:
        for name, count in counts.items():
            if count > before.get(name, 0):
                scaled = context.notes.setdefault("scaled", {})
                scaled.setdefault(f"{name} {count}", round(time.monotonic() - since, 1))

    with context.graph.watch(note_new_replicas):
        context.load.set_rate(LOAD_FACTOR * context.rate)
        context.begun = since
        yield
    context.load.set_rate(context.rate)


@contextlib.contextmanager
def inject_bundle_changes(context: ScenarioContext) -> Iterator[None]:
    """Promote a bundle, roll back, then make a corrupt one live."""
    assert context.bundles is not None
    context.begun = time.monotonic()
    context.notes |= context.bundles.change_live_bundle(context.graph.service.url)
    yield


@contextlib.contextmanager
def inject_bad_requests(context: ScenarioContext) -> Iterator[None]:
    """Send ten invalid requests per second on separate connections."""
    end, statuses = threading.Event(), Counter()  # type: threading.Event, Counter[tuple[str, int | str]]
    url = f"{context.graph.service.url}/v1/recommendations"

    def send() -> None:
        with httpx.Client(timeout=15, trust_env=False) as client:
            while not end.is_set():
                for name, body in BAD_REQUESTS.items():
                    try:
                        status: int | str = client.post(url, content=body, headers=JSON).status_code
                    except httpx.HTTPError as error:
                        status = type(error).__name__
                    statuses[name, status] += 1
                    if end.wait(0.1):
                        return

    thread = threading.Thread(target=send, daemon=True)
    context.begun = time.monotonic()
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        counts = {f"{name}: {status}": count for (name, status), count in statuses.items()}
        refused = {f"{name}: {status}" for name, status in statuses if status in range(400, 500)}
        context.notes |= {"poison": counts, "not 4xx": {name: n for name, n in counts.items() if name not in refused}}


def _build_stage_scenarios() -> Iterator[FaultScenario]:
    kill_checks = (check_success_share(0.999), check_p99(2.0), check_recovery(30.0))
    for stage in STAGES:
        yield FaultScenario(f"kill {stage}", inject_kill(stage), kill_checks)
    for stage in STAGES:
        stop_checks = (check_success_share(0.999), check_p99(1.1), check_recovery(60.0))
        yield FaultScenario(f"stop {stage}", inject_stop(stage), stop_checks)
    for stage in STAGES:
        slow_checks = (check_success_share(0.999), check_p99(1.1), check_recovery(30.0))
        yield FaultScenario(f"slow {stage}", inject_slow(stage), slow_checks, lasts=True)


STORE_CHECKS = (check_flagged("features"), check_recovery(30.0))
SCENARIOS = (
    *_build_stage_scenarios(),
    *(
        FaultScenario(
            f"kill {name}", inject_kill(name), (check_only_in_flight_failed, check_p99(2.0), check_recovery(30.0))
        )
        for name in ("Gateway", "controller", "proxy")
    ),
    *(
        FaultScenario(f"store {how}", inject_store(how), (check_no_failures, *STORE_CHECKS), lasts=True)
        for how in ("locked", "slow")
    ),
    # a missing file is noticed when a gateway opens it: one is killed, and requests in flight there fail
    FaultScenario("store gone", inject_store("gone"), (check_only_in_flight_failed, *STORE_CHECKS), lasts=True),
    FaultScenario(
        "load step", inject_load_step, (check_failures_are_shed, check_p99(1.0), check_recovery(30.0)), lasts=True
    ),
    FaultScenario(
        "bundles", inject_bundle_changes,
        (
            check_no_failures, check_note_is_empty("mixed", "mixed versions"),
            check_note_is_empty("not followed", "not followed"),
        ),
    ),
    FaultScenario(
        "poison", inject_bad_requests,
        (check_success_share(1.0), check_p99(1.0), check_note_is_empty("not 4xx", "poison not refused")), lasts=True,
    ),
)  # fmt: skip


STORE_SCENARIOS = (  # in the layout without a shared folder
    FaultScenario(
        "kill PostgreSQL", inject_away("PostgreSQL"), (check_no_failures, check_flagged("event_log"),
        check_recovery(30.0)), lasts=True,
    ),
    FaultScenario("kill Redis", inject_away("Redis"), (check_no_failures, *STORE_CHECKS), lasts=True),
    FaultScenario(
        "kill S3", inject_away("S3"), (check_no_failures, check_p99(1.1), check_note_is_empty("degraded", "degraded"),
        check_recovery(30.0)), lasts=True,
    ),
    FaultScenario(
        "silent S3, kill Gateway", inject_silent_storage, (check_only_in_flight_failed,
        check_note_is_empty("not replaced", "gateway not replaced"), check_recovery(30.0)),
    ),
)  # fmt: skip


def resume_stopped_process(context: ScenarioContext) -> None:
    """Resume a process that a scenario stopped and Serve did not replace."""
    if pid := context.notes.get("stopped"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()
