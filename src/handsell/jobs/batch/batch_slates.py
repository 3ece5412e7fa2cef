"""`handsell batch CONFIG --surface email --out DIR`: a slate for every user, as Parquet, in parallel Ray tasks.

    plan (run.json) → parts of users, each: rows and later events → funnel → part-00000.parquet → impressions → mark
                    → manifest.json

Parts are independent, and a part is marked when it is done. A stopped job resumes with the missing parts, with the
bundle and time of run.json. A part with Parquet but without a mark only logs its impressions again, which is harmless:
a slate's recommendation_id is derived from run and user.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, fields
from pathlib import Path

from handsell.bundles.opening import open_bundles
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.config.locations import make_absolute
from handsell.core.clock import Clock
from handsell.core.errors import BundleError, ConfigError, DataError
from handsell.core.paths import Layout
from handsell.jobs.batch.batch_run import BatchRun, PartCounts
from handsell.jobs.batch.slate_part import make_slates
from handsell.jobs.cluster import connect, run_tasks
from handsell.jobs.progress import Progress, peak_mib

PLAN, MANIFEST = "run.json", "manifest.json"


def batch(config: Config, surface: str, out: Path, *, users_per_part: int = 1_000, record: bool = True) -> str:
    """Make the missing parts of a run in `out`; returns the result as a sentence.

    Raises ConfigError for an unknown surface, DataError for a folder of another run, BundleError if no bundle is live.
    """
    if surface not in config.surfaces:
        raise ConfigError(f"surface is expected to be one of {', '.join(config.surfaces)}; got {surface!r:.80}")
    progress, out = Progress(3), make_absolute(out.expanduser())
    with progress.step("plan", str(out)) as note:
        run = plan_run(config, surface, out, users_per_part, record)
        marks = [mark_path(out, part) for part in range(run.parts)]
        missing = [part for part, mark in enumerate(marks) if not mark.is_file()]
        already = f", {run.parts - len(missing):,} of them already done" if len(missing) < run.parts else ""
        note.text = f"{run.users:,} users in {run.parts:,} parts{already}, bundle {run.bundle}"
    with progress.step("slates", f"{len(missing):,} parts") as note, connect(config.jobs.num_cpus):
        begun = time.monotonic()
        arguments = [(str(config.source), run, str(out), part) for part in missing]
        made = run_tasks(make_slates, arguments, cpus=1.0, wait_s=config.jobs.wait_for_resources_s)
        users = sum(done.users for done in made)
        note.text = f"{users:,} users, {users / max(time.monotonic() - begun, 1e-9):,.0f} per second"
    with progress.step("manifest") as note:
        total = _sum_counts([PartCounts(**json.loads(mark.read_text())) for mark in marks])
        manifest = {**asdict(run), "parts": run.parts, **asdict(total), "driver_peak_mib": round(peak_mib())}
        _write(out / MANIFEST, json.dumps(manifest, indent=1))
        note.text = str(out / MANIFEST)
    return (
        f"{total.slates:,} slates of {total.items:,} items for {total.users:,} users of {surface} in {out}; "
        f"{total.capped:,} have reached the surface's cap, {total.empty:,} got no items"
    )


def plan_run(config: Config, surface: str, out: Path, users_per_part: int, record: bool) -> BatchRun:
    """Read the run in `out`, or plan a new one there."""
    path = out / PLAN
    if path.is_file():
        run = BatchRun(**json.loads(path.read_text()))
        if (run.surface, run.record) != (surface, record):
            raise DataError(
                f"{out} holds a run of surface {run.surface} with record = {str(run.record).lower()}; got surface "
                f"{surface} with {str(record).lower()}: give another --out, or resume with the same options"
            )
        if (out / MANIFEST).is_file():
            raise DataError(f"{out} has a complete run ({MANIFEST}): give another --out for a new one")
        return run
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and has no {PLAN}: give an empty folder, or that of an earlier run")
    store = open_bundles(config)
    bundle = store.live()
    if bundle is None:
        raise BundleError(f"no bundle of {config.name} is live: run `handsell train {config.source}` first")
    clock = Clock.of(config.serving.clock, store.verify(bundle))
    users = len(Vocabulary.load(Layout(config.state).catalog / "users"))
    run = BatchRun(
        uuid.uuid4().hex[:12], surface, bundle, clock.now(), users, users_per_part, record, time.time_ns() // 1_000
    )
    out.mkdir(parents=True, exist_ok=True)
    _write(path, json.dumps(asdict(run), indent=1))
    return run


def mark_path(out: Path, part: int) -> Path:
    return out / f"part-{part:05d}.json"


def _sum_counts(parts: list[PartCounts]) -> PartCounts:
    return PartCounts(**{f.name: sum(getattr(done, f.name) for done in parts) for f in fields(PartCounts)})


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
