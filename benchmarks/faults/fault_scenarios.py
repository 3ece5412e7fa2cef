"""The faults of benchmarks/faults.py: what is done to a graph under load, and what it must keep."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from benchmarks.faults.fault_targets import STAGES, Graph, OnlineStore, kill, meanwhile, slowed
from benchmarks.faults.slo_checks import (
    Promise,
    answered,
    flagged,
    full_within,
    no_5xx,
    noted,
    only_in_flight,
    quick,
    told_to_come_back,
)  # fmt: skip
from benchmarks.serving.load_generator import Load

JSON = {"content-type": "application/json"}
STEP = 5  # times the load
SLOW_S = 0.5
STORE_SLOW_S = 1.0  # longer than a request waits for the store; for less than that nothing is to be seen but latency
POISON = {
    "NaN": b'{"user_id":"u","count":NaN}',
    "10 MB": b'{"user_id":"' + b"x" * 10_000_000 + b'"}',
    "k = 1e9": b'{"user_id":"u","count":1000000000}',
    "deep JSON": b'{"session":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "bad UTF-8": b'{"user_id":"\xff\xfe"}',
}


@dataclass
class Scene:
    """A graph under steady load, and what the drill has learned of it besides the answers."""

    graph: Graph
    load: Load
    rate: float  # requests per second
    bundles: Any = None  # benchmarks.twins.Twins
    notes: dict[str, Any] = field(default_factory=dict)
    begun: float = 0.0  # when the fault was there

    def stands_still(self) -> bool:
        """Whether a process that was stopped is still there."""
        return psutil.pid_exists(self.notes.get("stopped", -1))


Injection = Callable[[Scene], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Drill:
    """`inject` is entered when the fault begins and left when it ends, `hold_s` later; None: it is over at once."""

    name: str
    inject: Injection
    promises: tuple[Promise, ...]
    holds: bool = False


# -- faults -----------------------------------------------------------------------------------------------------


def killed(name: str) -> Injection:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        process = scene.graph.one(name)
        scene.begun = kill(process)
        process.wait(10)
        scene.notes["gone after s"] = round(time.monotonic() - scene.begun, 3)
        yield

    return inject


def stopped(name: str) -> Injection:
    """SIGSTOP, for good: the health check has to replace it."""

    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        process = scene.graph.one(name)
        process.suspend()
        scene.begun = time.monotonic()
        scene.notes["stopped"] = process.pid
        yield

    return inject


def slow(name: str) -> Injection:
    """It stands still for 500 ms, then runs for 100 ms, and so on."""

    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        scene.begun = time.monotonic()
        with slowed(scene.graph.one(name), SLOW_S, SLOW_S / 5):
            yield

    return inject


def store(how: str) -> Injection:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        scene.begun = time.monotonic()
        online = OnlineStore(scene.graph)
        with online.slow(STORE_SLOW_S, STORE_SLOW_S / 5) if how == "slow" else getattr(online, how)():
            yield

    return inject


@contextlib.contextmanager
def load_step(scene: Scene) -> Iterator[None]:
    """Five times the load; notes the replicas over time."""
    before, since = scene.graph.running(), time.monotonic()
    with watched(scene.graph, lambda counts: _note_more(scene, before, counts, since)):
        scene.load.rate(STEP * scene.rate)
        scene.begun = since
        yield
    scene.load.rate(scene.rate)


@contextlib.contextmanager
def watched(graph: Graph, see: Callable[[dict[str, int]], None], every_s: float = 0.5) -> Iterator[None]:
    """`see` gets the replicas by deployment while the block lasts."""

    def look(end: threading.Event) -> None:
        while not end.wait(every_s):
            see(graph.running())

    with meanwhile(look):
        yield


def _note_more(scene: Scene, before: dict[str, int], counts: dict[str, int], since: float) -> None:
    for name, count in counts.items():
        if count > before.get(name, 0):
            scene.notes.setdefault("scaled", {}).setdefault(f"{name} {count}", round(time.monotonic() - since, 1))


@contextlib.contextmanager
def changing_bundles(scene: Scene) -> Iterator[None]:
    """Promote, roll back, then point at a corrupt one; see benchmarks/twins.py."""
    scene.begun = time.monotonic()
    scene.notes |= scene.bundles.play(scene.graph.service.url)
    yield


@contextlib.contextmanager
def poison(scene: Scene) -> Iterator[None]:
    """Bad requests at ten a second among the good ones, over connections of their own."""
    end, statuses = threading.Event(), Counter()  # type: threading.Event, Counter[tuple[str, int | str]]
    url = f"{scene.graph.service.url}/v1/recommendations"

    def send() -> None:
        with httpx.Client(timeout=15) as client:
            while not end.is_set():
                for name, body in POISON.items():
                    try:
                        status = client.post(url, content=body, headers=JSON).status_code
                    except httpx.HTTPError as error:
                        status = type(error).__name__
                    statuses[name, status] += 1
                    if end.wait(0.1):
                        return

    thread = threading.Thread(target=send, daemon=True)
    scene.begun = time.monotonic()
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        told = {f"{name}: {status}": count for (name, status), count in statuses.items()}
        refused = {f"{name}: {status}" for name, status in statuses if status in range(400, 500)}
        scene.notes |= {"poison": told, "not 4xx": {name: n for name, n in told.items() if name not in refused}}


def _stage_drills() -> Iterator[Drill]:
    lasting = (answered(0.999), quick(2.0), full_within(30.0))
    for stage in STAGES:
        yield Drill(f"kill {stage}", killed(stage), lasting)
    for stage in STAGES:
        yield Drill(f"stop {stage}", stopped(stage), (answered(0.999), quick(1.1), full_within(60.0)))
    for stage in STAGES:
        yield Drill(f"slow {stage}", slow(stage), (answered(0.999), quick(1.1), full_within(30.0)), holds=True)


DRILLS = (
    *_stage_drills(),
    *(
        Drill(f"kill {name}", killed(name), (only_in_flight, quick(2.0), full_within(30.0)))
        for name in ("Gateway", "controller", "proxy")
    ),
    *(
        Drill(f"store {how}", store(how), (no_5xx, flagged("features"), full_within(30.0)), holds=True)
        for how in ("locked", "slow")
    ),
    # a file that is gone is noticed when a gateway opens it: one is killed, what was in flight there fails
    Drill("store gone", store("gone"), (only_in_flight, flagged("features"), full_within(30.0)), holds=True),
    Drill("load step", load_step, (told_to_come_back, quick(1.0), full_within(30.0)), holds=True),
    Drill(
        "bundles", changing_bundles, (no_5xx, noted("mixed", "mixed versions"), noted("unmoved", "not followed"))
    ),
    Drill("poison", poison, (answered(1.0), quick(1.0), noted("not 4xx", "poison not refused")), holds=True),
)  # fmt: skip


def clean_up(scene: Scene) -> None:
    """A process that a drill left standing still and that nobody replaced."""
    if pid := scene.notes.get("stopped"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()
