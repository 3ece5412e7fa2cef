"""`handsell train CONFIG`: from the newest events to a promoted bundle, on the Ray cluster that runs this process.

    erase → compact → data → features → apply → materialize → training, whose steps are in train/train.py → clean

A step before training is skipped where its inputs are unchanged, so that training again without new events costs
little more than training alone. The commands of the same names run the steps one by one. With object storage, the
newest state is pulled first and what a step has changed is pushed after it, so another machine can go on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext

from handsell.config import Config
from handsell.config.permissions import require_writable
from handsell.core.errors import HandsellError
from handsell.events.compaction import compact
from handsell.events.store.opening import has_one_writer, open_reader
from handsell.jobs.audited_command import append_entry
from handsell.jobs.cleaning import clean
from handsell.jobs.cluster import connect, open_cluster
from handsell.jobs.erasure.erase import resume
from handsell.jobs.features import steps
from handsell.jobs.ingest.ingest import prepare
from handsell.jobs.progress import Progress, report_update
from handsell.jobs.train.train import count_steps, train
from handsell.storage.published_state import open_published_state

UNCHANGED = "unchanged, skipped"


def run_pipeline(config: Config, promote: bool = True) -> str:
    """Run all steps; return the outcome of the training as a sentence."""
    require_writable(config)
    progress, state = Progress(len(STEPS) + count_steps(config)), open_published_state(config)
    if pulled := state.pull():
        report_update(f"newer in object storage, and fetched: {', '.join(pulled)}")
    with open_cluster(config):
        for name, run in STEPS.items():
            with progress.step(name) as note:
                note.text = UNCHANGED if name in SKIPPED and steps.is_unchanged(config, name) else run(config)
                state.push()  # what a training that is killed later need not do again
        outcome = train(config, promote, progress)
        with _reach_writer(config):
            append_entry(config, "train", f"deployment {config.name}", "done", outcome)
            report_update(_clean(config))
        state.push()
    return outcome


def _reach_writer(config: Config) -> AbstractContextManager:
    """Connect to the service whose writer has the event store, if there may be one; Ray takes a second to import."""
    through_service = os.environ.get("RAY_ADDRESS") and has_one_writer(config)
    return connect(config.jobs.num_cpus) if through_service else nullcontext()


def _clean(config: Config) -> str:
    """Remove what `[retention]` does not keep; a store that does not answer does not fail the training."""
    try:
        return clean(config)
    except HandsellError as error:
        return f"old data was not removed: {error}"


def ingest_events(config: Config) -> str:
    """Read source tables and the event store; return the number of events, users and items in a sentence."""
    counts = prepare(config)
    if counts["skipped"]:
        return UNCHANGED
    return f"{counts['events']:,} events, {counts['users']:,} users, {counts['items']:,} items"


def finish_erasures(config: Config) -> str:
    """Remove people whose erasure is not finished from all files."""
    with closing(open_reader(config)) as reader:
        if all(erasure.user_id is None for erasure in reader.read_erasures()):
            return "nobody to erase"
    with _reach_writer(config):
        outcome = resume(config, report_update)
    return outcome.to_text() if outcome.people else "nobody to erase"


STEPS: dict[str, Callable[[Config], str]] = {
    "erase": finish_erasures,
    "compact": lambda config: compact(config, report_update).to_text(),
    "data": ingest_events,
    "features": lambda config: steps.compute_features(config, Progress(4, nested=True)),
    "apply": steps.register_features,
    "materialize": steps.materialize,
}
SKIPPED = ("features", "apply", "materialize")  # if unchanged; the others read what is new, and nothing else
