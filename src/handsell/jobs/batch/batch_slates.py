"""`handsell batch CONFIG --surface email --out DIR`: a slate for every user, as Parquet, mapped over users by Ray Data.

    plan (run.json) → parts of users, each: rows and log tails → funnel → part-00000.parquet → impressions → mark
                    → manifest.json

Parts are independent and each is marked when it is done, so a job that was stopped goes on where it was: with the
bundle and at the time that run.json holds. A part whose Parquet is whole but whose mark is missing only has its
impressions logged again, which is harmless: a slate's recommendation_id follows from run and user.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, fields
from pathlib import Path

from handsell.bundles.store import BundleStore
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import BundleError, ConfigError, DataError
from handsell.core.paths import Layout
from handsell.jobs.batch.batch_run import BatchRun, PartCounts
from handsell.jobs.batch.slate_part import make_slates
from handsell.jobs.cluster import connect, spread
from handsell.jobs.progress import Progress, peak_mib

PLAN, MANIFEST = "run.json", "manifest.json"


def batch(config: Config, surface: str, out: Path, *, users_per_part: int = 1_000, record: bool = True) -> str:
    """Make what is missing of a run in `out`; returns what came of it in words.

    Raises ConfigError for a surface that there is not, DataError for a folder of another run, BundleError where no
    bundle is live.
    """
    if surface not in config.surfaces:
        raise ConfigError(f"surface is expected to be one of {', '.join(config.surfaces)}; got {surface!r:.80}")
    progress, out = Progress(3), out.expanduser().resolve()
    with progress.step("plan", str(out)) as note:
        run = plan_run(config, surface, out, users_per_part, record)
        marks = [mark_path(out, part) for part in range(run.parts)]
        missing = [part for part, mark in enumerate(marks) if not mark.is_file()]
        already = f", {run.parts - len(missing):,} of them done already" if len(missing) < run.parts else ""
        note.text = f"{run.users:,} users in {run.parts:,} parts{already}, bundle {run.bundle}"
    with progress.step("slates", f"{len(missing):,} parts") as note, connect(config.jobs.num_cpus):
        begun = time.monotonic()
        arguments = [(str(config.source), run, str(out), part) for part in missing]
        made = spread(make_slates, arguments, cpus=1.0, wait_s=config.jobs.wait_for_resources_s)
        users = sum(done.users for done in made)
        note.text = f"{users:,} users, {users / max(time.monotonic() - begun, 1e-9):,.0f} a second"
    with progress.step("manifest") as note:
        total = _add_up([PartCounts(**json.loads(mark.read_text())) for mark in marks])
        manifest = {**asdict(run), "parts": run.parts, **asdict(total), "driver_peak_mib": round(peak_mib())}
        _write(out / MANIFEST, json.dumps(manifest, indent=1))
        note.text = str(out / MANIFEST)
    return (
        f"{total.slates:,} slates of {total.items:,} items for {total.users:,} users of {surface} in {out}; "
        f"{total.capped:,} had their fill, {total.empty:,} got nothing"
    )


def plan_run(config: Config, surface: str, out: Path, users_per_part: int, record: bool) -> BatchRun:
    """The run that `out` holds, or a new one there."""
    path = out / PLAN
    if path.is_file():
        run = BatchRun(**json.loads(path.read_text()))
        if (run.surface, run.record) != (surface, record):
            raise DataError(
                f"{out} holds a run for surface {run.surface} with record = {str(run.record).lower()}; asked was "
                f"{surface} with {str(record).lower()}: give another --out, or the same options to go on with it"
            )
        if (out / MANIFEST).is_file():
            raise DataError(f"{out} holds a complete run ({MANIFEST}): give another --out for a new one")
        return run
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no {PLAN}: give an empty folder, or one of an earlier run")
    store = BundleStore(Layout(config.state).bundles)
    bundle = store.live()
    if bundle is None:
        raise BundleError(f"no bundle of {config.name} is live: run `handsell train {config.source}` first")
    clock = Clock.of(config.serving.clock, store.verify(bundle))
    users = len(Vocabulary.load(Layout(config.state).catalog / "users"))
    run = BatchRun(uuid.uuid4().hex[:12], surface, bundle, clock.now(), users, users_per_part, record)
    out.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(asdict(run), indent=1))
    return run


def mark_path(out: Path, part: int) -> Path:
    return out / f"part-{part:05d}.json"


def _add_up(parts: list[PartCounts]) -> PartCounts:
    return PartCounts(**{f.name: sum(getattr(done, f.name) for done in parts) for f in fields(PartCounts)})


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(path)
