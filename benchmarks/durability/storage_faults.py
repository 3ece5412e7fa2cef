"""Faults of the storage and the clock: a full disk, a clock that is set back, a flipped bit."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from benchmarks.durability.components import Surroundings
from benchmarks.durability.ledger import Comparison
from benchmarks.durability.rounds import KilledSystem
from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader, open_writer

DISK_MIB = 6
FILLED_S = 12.0
HOUR_S = 3_600.0


@contextlib.contextmanager
def mount_small_disk(folder: Path) -> Iterator[bool]:
    """Mount a tmpfs of DISK_MIB; yields False where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    try:
        has_command = shutil.which("mount") is not None
        yield has_command and subprocess.run(command, capture_output=True, check=False).returncode == 0
    finally:
        if folder.is_mount():
            subprocess.run(["umount", "-l", str(folder)], check=False)


def fill_disk(around: Surroundings, folder: Path, rng: random.Random) -> Comparison | None:
    """Write until the disk is full, kill the writer there, free space, go on; None where no disk can be mounted."""
    with mount_small_disk(folder) as mounted:
        if not mounted:
            return None
        ballast = folder / "ballast"
        ballast.write_bytes(bytes((DISK_MIB - 4) << 20))
        with _start_elsewhere(around, folder) as system:
            until = time.monotonic() + FILLED_S
            while shutil.disk_usage(folder).free > 65_536 and time.monotonic() < until:
                time.sleep(0.05)
            before = len(system.ledger.acknowledged)
            time.sleep(0.5)  # appends fail now
            system.kill_writer()
            if shutil.disk_usage(folder).free > 65_536:
                raise RuntimeError(f"the disk of {DISK_MIB} MiB was not full after {FILLED_S:.0f} s: {before} events")
            ballast.unlink()
            system.restart_writer()
            time.sleep(rng.uniform(0.3, 0.6))
            system.stop_writers()
            return system.compare()


def set_clock_back(around: Surroundings, folder: Path) -> Comparison:
    """Kill the writer, set the clock back an hour, and go on."""
    with _start_elsewhere(around, folder) as system:
        time.sleep(0.4)
        system.kill_writer()
        system.shift_s = -HOUR_S
        system.restart_writer()
        time.sleep(0.4)
        system.stop_writers()
        return system.compare()


def flip_bits(around: Surroundings, folder: Path, rng: random.Random, flips: int) -> dict[str, int]:
    """Flip one bit in a copy of a store, again and again; count what reading and writing it make of that."""
    with _start_elsewhere(around, folder) as system:
        time.sleep(0.5)
        system.stop_writers()
    open_writer(system.config).close()  # moves the rest of its log of writes to the file
    found = {"refused": 0, "harmless": 0, "wrong": 0}
    path = Layout(system.config.state).event_log
    good = read_everything(system)
    whole = path.read_bytes()
    for _ in range(flips):
        damaged = bytearray(whole)
        at = rng.randrange(len(damaged))
        damaged[at] ^= 1 << rng.randrange(8)
        for old in path.parent.glob(f"{path.name}-*"):
            old.unlink()
        path.write_bytes(damaged)
        found[judge_damaged(system, good)] += 1
    return found


def judge_damaged(system: KilledSystem, good: list[tuple]) -> str:
    """`refused` in words, `harmless` if it answers as before, else `wrong`."""
    try:
        open_writer(system.config).close()
        return "harmless" if read_everything(system) == good else "wrong"
    except HandsellError:
        return "refused"


def read_everything(system: KilledSystem) -> list[tuple]:
    with closing(open_reader(system.config)) as reader:
        columns = reader.scan(0, 1_000_000)
    return list(zip(*columns.values(), strict=True))


@contextlib.contextmanager
def _start_elsewhere(around: Surroundings, folder: Path) -> Iterator[KilledSystem]:
    """Start a writer alone, on a store of its own below `folder`; end it afterwards."""
    home = {"HANDSELL_HOME": str(folder / "home"), "HANDSELL_EVENT_STORE": "sqlite"}
    os.environ.update(home)
    own = replace(around, environment={**around.environment, **home}, positions=str(folder / "positions"))
    system = KilledSystem(load_config(around.config), own, followers=False)
    try:
        system.start()
        yield system
    finally:
        system.stop()
