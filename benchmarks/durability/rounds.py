"""Rounds of kill -9 under load: each kills one part of the system at a random moment, and starts it again."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from benchmarks.durability.components import (
    Component,
    Surroundings,
    WriterTask,
    compact_repeatedly,
    process_stream,
    write_events,
)
from benchmarks.durability.ledger import Comparison, Ledger, compare_with_store
from benchmarks.events.postgresql_server import PostgresqlServer
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.compacted_files import list_ranges, read_range
from handsell.events.compaction import compact
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import has_one_writer, open_reader

LONGEST_S = 0.6  # from the start of a part to its end
CATCH_UP_S = 120.0
DRAIN_S = 60.0


@dataclass
class KilledSystem:
    """Writers, compaction and stream processor over one store, with a ledger of what was acknowledged."""

    config: Config
    around: Surroundings
    writers: int = 1
    early: bool = False
    shift_s: float = 0.0  # of the clock of writers that start from now on
    server: PostgresqlServer | None = None
    followers: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    kills: Counter[str] = field(default_factory=Counter)
    _started: int = 0
    _parts: dict[str, Component] = field(default_factory=dict)

    def start(self) -> None:
        for number in range(self.writers):
            name = f"writer {number}" if self.writers > 1 else "writer"
            self._parts[name] = Component(name, write_events, self.ledger.record)
            self._start_writer(name)
        if self.followers:
            for name, target in (("compaction", compact_repeatedly), ("stream processor", process_stream)):
                self._parts[name] = Component(name, target, self.ledger.record)
                self._parts[name].start(self.around)

    def kill_writer(self) -> None:
        self._parts["writer"].kill()
        self.kills["writer"] += 1

    def restart_writer(self) -> None:
        self._start_writer("writer")

    def _start_writer(self, name: str) -> None:
        """Start a writer. It sends again what the former one of its name did not see acknowledged."""
        self._started += 1
        own = f"{name.replace(' ', '')}-"
        resend = tuple(id for id in self.ledger.list_waiting() if id.startswith(own))
        prefix = f"{own}{self._started}"
        self._parts[name].start(self.around, WriterTask(prefix, resend, self.early, self.shift_s))

    def run_round(self, rng: random.Random, names: list[str]) -> str:
        """Let the system work for a random time, kill one of the named parts, and start it again."""
        time.sleep(rng.uniform(0.02, LONGEST_S))
        name = rng.choice(names)
        if name == "PostgreSQL":
            assert self.server is not None
            self.server.kill()
            self.server.start()
        else:
            part = self._parts[name]
            part.kill()
            if part.target is write_events:
                self._start_writer(name)
            else:
                part.start(self.around)
        self.kills[name.split(" ")[0] if name.startswith("writer") else name] += 1
        return name

    @property
    def names(self) -> list[str]:
        """The parts that can be killed."""
        return [*self._parts, *(["PostgreSQL"] if self.server else [])]

    def stop_writers(self) -> None:
        """Wait until everything that was sent is acknowledged, as far as possible, and kill the writers."""
        for name, part in self._parts.items():
            if part.target is write_events:
                part.kill()
                if not self.early:
                    self._drain(name)

    def _drain(self, name: str) -> None:
        """Send what is left once more, so that nothing is unknown: stored or not."""
        before, until = set(self.ledger.list_waiting()), time.monotonic() + DRAIN_S
        self._start_writer(name)
        while before & set(self.ledger.list_waiting()) and time.monotonic() < until:
            time.sleep(0.05)
        self._parts[name].kill()

    def stop(self) -> None:
        for part in self._parts.values():
            if part.process is not None and part.process.is_alive():
                part.kill()

    def compare(self) -> Comparison:
        with closing(open_reader(self.config)) as reader:
            return compare_with_store(self.ledger, reader)

    def count_compaction_errors(self) -> int:
        """Compact the rest; return the number of offsets that are missing in the compacted files, or in them twice."""
        part = self._parts["compaction"]
        part.kill()
        compact(self.config, lambda _: None)
        folder = Layout(self.config.state).compacted
        copied: Counter[int] = Counter()
        for one in list_ranges(folder, "events"):
            copied.update(read_range(folder, one)["offset"].to_pylist())
        with closing(open_reader(self.config)) as reader:
            stored = list(read_offsets(reader))
        return sum(copied[offset] != 1 for offset in stored) + len(copied.keys() - set(stored))

    def catch_up(self) -> bool:
        """Run the stream processor until it has read the whole store."""
        if has_one_writer(self.config):  # it stores the positions
            self._parts["writer"].start(self.around, WriterTask("none", silent=True))
        until = time.monotonic() + CATCH_UP_S
        while (lag := self._read_lag()) > 0 and time.monotonic() < until:
            time.sleep(0.2)
        return lag <= 0

    def _read_lag(self) -> int:
        from handsell.serving.stream.processor import POSITION

        with closing(open_reader(self.config)) as reader:
            return reader.last_offset() - reader.read_position(POSITION)


def read_offsets(reader: EventReader) -> Iterator[int]:
    after = 0
    while offsets := reader.scan(after, 20_000)["offset"]:
        yield from offsets
        after = offsets[-1]
