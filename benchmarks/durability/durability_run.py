"""Events that were acknowledged and are lost, or count twice, after kill -9 at random moments under load.

    make up && make down && python -m benchmarks durability
    python -m benchmarks durability --rounds 10 --stores sqlite --gateway-rounds 0

A round kills one part and starts it again: on SQLite the writer, the compaction or the stream processor, on PostgreSQL
these, one of two writers, or all processes of the server. Then rounds against a running service: a gateway, the
writer or a proxy under HTTP load. Clients send again what was not acknowledged, and now and then what was. Afterwards
everything acknowledged is looked for in the store, compaction must have copied each offset once, and the online rows
must equal a replay of the store from zero. More cases: a full disk, a clock set back an hour, flipped bits. The
negative control acknowledges before the commit; a run that does not find its losses fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.durability.components import Surroundings
from benchmarks.durability.gateway_rounds import run_gateway_rounds
from benchmarks.durability.ledger import Comparison
from benchmarks.durability.rounds import KilledSystem
from benchmarks.durability.storage_faults import fill_disk, flip_bits, set_clock_back
from benchmarks.events.event_run import STORE, STORES, choose_items, copy_deployment
from benchmarks.events.postgresql_server import PostgresqlServer, start_postgresql
from benchmarks.report import write_report
from benchmarks.serving.smoke import sample_users
from handsell.config import Config, load_config

FLIPS = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the report."""

    name: str
    rounds: int
    killed: str
    found: Comparison
    compaction: int | None = None  # offsets that were not copied exactly once
    online: int | None = None  # users whose online row is not that of a replay from zero

    @property
    def is_right(self) -> bool:
        return self.found.is_right and not self.compaction and not self.online

    def to_row(self) -> dict:
        return {
            "case": self.name, "rounds": self.rounds, "killed": self.killed, "acknowledged": self.found.acknowledged,
            "lost": self.found.lost, "twice": self.found.twice, "disordered": self.found.disordered,
            "compaction": self.compaction, "online": self.online,
        }  # fmt: skip


def describe_surroundings(config: Config, folder: Path, users: list[str]) -> Surroundings:
    environment = {name: os.environ[name] for name in ("HANDSELL_HOME", STORE)}
    positions = str(folder / "positions")
    types = tuple(config.events.names)
    return Surroundings(str(config.source), tuple(users), tuple(choose_items(config)), types, positions, environment)


def run_rounds(
    name: str, config: Config, around: Surroundings, rounds: int, rng: random.Random,
    server: PostgresqlServer | None = None,
) -> Case:  # fmt: skip
    """Kill the parts of one system in random order."""
    from handsell.serving.stream.replay_check import compare_online_with_replay

    system = KilledSystem(config, around, writers=2 if server else 1, server=server)
    try:
        system.start()
        for number in range(rounds):
            killed = system.run_round(rng, system.names)
            print(
                f"  {name} {number + 1}/{rounds}: {killed}, {len(system.ledger.acknowledged):,} acknowledged",
                flush=True,
            )
        system.stop_writers()
        print(f"  {name}: comparing …", flush=True)
        found, compaction = system.compare(), system.count_compaction_errors()
        system.catch_up()
        replay = compare_online_with_replay(config)
        online = len(replay.differing) + replay.unread
        return Case(name, rounds, _list(system.kills), found, compaction, online)
    finally:
        system.stop()


def run_control(config: Config, around: Surroundings, rounds: int, rng: random.Random) -> Case:
    """Acknowledge before the commit: some of it must be lost."""
    system = KilledSystem(config, around, early=True, followers=False)
    try:
        system.start()
        for _ in range(rounds):
            system.run_round(rng, ["writer"])
        system.stop_writers()
        return Case("control: acknowledged before the commit", rounds, _list(system.kills), system.compare())
    finally:
        system.stop()


def _list(kills: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in kills.most_common())


def run_on_sqlite(original: Config, users: list[str], rounds: int, rng: random.Random) -> list[Case]:
    cases = []
    with choose_url("sqlite"):
        with copy_deployment(original) as (config, folder):
            around = describe_surroundings(config, folder, users)
            cases.append(run_rounds("sqlite", config, around, rounds, rng))
            cases.append(Case("clock set back an hour", 1, "1 writer", set_clock_back(around, folder / "clock")))
            full = fill_disk(around, folder / "disk", rng)
            if full is None:
                print("  full disk: left out, because no tmpfs can be mounted here", flush=True)
            else:
                cases.append(Case("full disk", 1, "1 writer", full))
            damage = flip_bits(around, folder / "bits", rng, FLIPS)
            print(f"  {FLIPS} flipped bits: {damage}", flush=True)
            wrong = Comparison(FLIPS, damage["wrong"], 0, FLIPS, 0)
            cases.append(Case(f"flipped bit, {damage['refused']} refused", FLIPS, "none", wrong))
        with copy_deployment(original) as (config, folder):
            around = describe_surroundings(config, folder, users)
            cases.append(run_control(config, around, max(5, rounds // 10), rng))
    return cases


def run_on_postgresql(original: Config, users: list[str], rounds: int, rng: random.Random) -> list[Case]:
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-postgresql-"))
        server = stack.enter_context(start_postgresql(Path(place)))
        stack.enter_context(choose_url(server.url))
        config, folder = stack.enter_context(copy_deployment(original))
        around = describe_surroundings(config, folder, users)
        return [run_rounds("postgresql", config, around, rounds, rng, server)]


@contextlib.contextmanager
def choose_url(url: str) -> Iterator[None]:
    os.environ[STORE] = url
    try:
        yield
    finally:
        os.environ.pop(STORE)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks durability", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--rounds", type=int, default=100, help="for each store")
    parser.add_argument("--gateway-rounds", type=int, default=20, help="against a running service, for each store")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another in every run")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--json", type=Path, help="output file")
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    original, rng = load_config(options.config), random.Random(seed)
    users = sample_users(original, options.users)
    run = {"sqlite": run_on_sqlite, "postgresql": run_on_postgresql}
    cases: list[Case] = []
    for store in options.stores:
        cases += run[store](original, users, options.rounds, rng) if options.rounds else []
        if options.gateway_rounds:
            killed, found = run_gateway_rounds(store, original, users, options.gateway_rounds, rng)
            cases.append(Case(f"service, {store}", options.gateway_rounds, _list(killed), found))
    control = [case for case in cases if case.name.startswith("control")]
    about = {"seed": seed, "rounds in all": sum(case.rounds for case in cases if case not in control)}
    write_report("durability", [case.to_row() for case in cases], about, options.json)
    if any(not case.found.lost for case in control):
        sys.exit("the control lost nothing: this run could not have found a loss")
    wrong = [case.name for case in cases if not case.is_right and case not in control]
    if wrong:
        sys.exit(f"wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
