"""The processes that are killed: each runs the code of the product in a loop, and starts within milliseconds.

They are forked by a server process that has imported the modules already (`multiprocessing`'s forkserver). A writer
takes positions of followers through a socket, as its deployment does through its handle.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from handsell.config import Config, load_config
from handsell.events.store.interface import EventStoreError, EventWriter

MODULES = [__name__, "handsell.events.compaction", "handsell.serving.stream.processor", "handsell.features.store"]
THREADS = 4
LARGEST_BATCH = 20
LONGEST_PAUSE_S = 0.06
RETRY_S = 0.05
READY_S = 60.0
LOCK_WAIT_S = 10.0
REPEATED = 0.05  # share of batches that are delivered again although they were acknowledged

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(MODULES)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every component knows."""

    config: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    types: tuple[str, ...]
    positions: str  # path of the socket on which a writer takes positions
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class WriterTask:
    """What one writer process sends; `resend` are ids that an earlier one did not acknowledge."""

    prefix: str
    resend: tuple[str, ...] = ()
    early: bool = False  # acknowledge before the commit: the negative control
    shift_s: float = 0.0  # of the clock
    silent: bool = False  # only take positions


@dataclass
class Component:
    """A process that can be killed and started again; `receive` gets its messages in a thread."""

    name: str
    target: Callable[..., None]
    receive: Callable[[str, Any], None]
    process: BaseProcess | None = None
    _reader: threading.Thread | None = None
    _ready: threading.Event = field(default_factory=threading.Event)

    def start(self, *arguments: Any) -> None:
        """Start the process and wait until it works."""
        ours, theirs = context.Pipe(duplex=False)
        self._ready.clear()
        self.process = context.Process(target=self.target, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        if not self._ready.wait(READY_S):
            raise TimeoutError(f"the {self.name} did not start within {READY_S:.0f} s")

    def kill(self) -> None:
        """kill -9; returns when all that it had sent has been received."""
        assert self.process is not None and self._reader is not None
        self.process.kill()
        self.process.join()
        self._reader.join()

    def _read(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                what, content = connection.recv()
                if what == "ready":
                    self._ready.set()
                else:
                    self.receive(what, content)
        self._ready.set()


# -- in the processes -------------------------------------------------------------------------------------------


def write_events(connection: Connection, around: Surroundings, task: WriterTask) -> None:
    """Append events from several threads until killed; reports every batch when it is sent and when it is stored."""
    from handsell.events.store.opening import has_one_writer, open_writer

    config = _enter(around, task.shift_s)
    writer = _open_when_reachable(lambda: open_writer(config, LOCK_WAIT_S))
    if has_one_writer(config):
        threading.Thread(target=_take_positions, args=(writer, around.positions), daemon=True).start()
    lock = threading.Lock()

    def report(what: str, ids: list[str]) -> None:
        with lock:
            connection.send((what, ids))

    left = list(task.resend)

    def append_in_turn(number: int) -> None:
        rng, place, done = random.Random(f"{task.prefix}-{number}"), 0, list[str]()
        while True:
            with lock:
                ids = [left.pop() for _ in range(min(len(left), LARGEST_BATCH))]
            if not ids and done and rng.random() < REPEATED:
                ids = done  # delivered a second time
            if not ids:
                size = rng.randint(1, LARGEST_BATCH)
                ids = [f"{task.prefix}-{number}-{place + n}" for n in range(size)]
                place += size
            _append(writer, [build_event(id, around, task.shift_s) for id in ids], ids, report, task.early)
            done = ids
            if not task.early:
                time.sleep(rng.uniform(0.0, LONGEST_PAUSE_S))  # the stream processor must be able to follow

    connection.send(("ready", None))
    if task.silent:
        threading.Event().wait()
    threads = [threading.Thread(target=append_in_turn, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    threads[0].join()


def _append(
    writer: EventWriter, events: list[dict], ids: list[str], report: Callable[[str, list[str]], None], early: bool
) -> None:
    """Append until the events are stored, as a client that gets 503 with Retry-After does."""
    report("sent", ids)
    while True:
        try:
            future = writer.append(events)
            if early:
                report("stored", ids)
            future.result()
            break
        except EventStoreError:
            time.sleep(RETRY_S)
    report("stored", ids)


def build_event(id: str, around: Surroundings, shift_s: float = 0.0) -> dict[str, Any]:
    """Return the event of an id: the same in every process, except for the time of its arrival."""
    rng = random.Random(id)
    return {
        "event_id": id, "user_id": rng.choice(around.users), "item_id": rng.choice(around.items),
        "type": rng.choice(around.types), "time": int((time.time() + shift_s) * 1e6), "sent_time": None,
    }  # fmt: skip


def compact_repeatedly(connection: Connection, around: Surroundings) -> None:
    from handsell.events.compaction import compact

    config = _enter(around)
    connection.send(("ready", None))
    while True:
        with contextlib.suppress(EventStoreError):
            compact(config, lambda _: None)
        time.sleep(0.02)


def process_stream(connection: Connection, around: Surroundings) -> None:
    """Run the stream processor of the product until killed."""
    from handsell.events.store.opening import has_one_writer, open_reader, open_writer
    from handsell.features.store import open_store
    from handsell.serving.stream.processor import Processor
    from handsell.serving.stream.snapshots import ServedCatalog

    config = _enter(around)
    if has_one_writer(config):
        save = _save_through(around.positions)
    else:
        writer = _open_when_reachable(lambda: open_writer(config))

        def save(name: str, offset: int) -> None:
            writer.save_position(name, offset).result(timeout=5)

    def build() -> Processor:
        return Processor(config, open_store(config), open_reader(config), ServedCatalog(config), save)

    processor = _open_when_reachable(build)
    connection.send(("ready", None))
    processor.run(threading.Event())


def _enter(around: Surroundings, shift_s: float = 0.0) -> Config:
    os.environ.update(around.environment)
    logging.disable()  # what is killed makes its neighbors report errors
    if shift_s:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + shift_s  # type: ignore[method-assign]
        time.time_ns = lambda: now_ns() + int(shift_s * 1e9)  # type: ignore[method-assign]
    return load_config(around.config)


def _open_when_reachable(open_it: Callable[[], Any]) -> Any:
    while True:
        try:
            return open_it()
        except EventStoreError:
            time.sleep(RETRY_S)


def _take_positions(writer: EventWriter, path: str) -> None:
    """Store the positions that followers send."""
    Path(path).unlink(missing_ok=True)
    with Listener(path, "AF_UNIX") as listener:
        while True:
            with contextlib.suppress(OSError, EOFError, EventStoreError), listener.accept() as follower:
                name, offset = follower.recv()
                writer.save_position(name, offset).result()
                follower.send("stored")


def _save_through(path: str) -> Callable[[str, int], None]:
    def save(name: str, offset: int) -> None:
        try:
            with Client(path, "AF_UNIX") as writer:
                writer.send((name, offset))
                if not writer.poll(5):
                    raise EventStoreError("the writer does not answer")
                writer.recv()
        except (OSError, EOFError) as error:
            raise EventStoreError(f"the writer does not answer: {error!r}") from error

    return save
