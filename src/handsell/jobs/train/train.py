"""`handsell train CONFIG`: from features to a promoted bundle, on the Ray cluster that it is submitted to.

    windows → rows from Feast → tuning (where asked for) → retrievers, from which sources are picked → candidates
            → item values from Feast → examples → ranker → strength of re-ranking
            → evaluation of this twin, as it came and as a service is asked
            → the same recipe on all data → bundle → gate → live

The twin knows nothing of the windows after its fit; the bundle's retrievers are refitted on everything
with the same settings, and keep the twin's ranker, which sees sources only as ranks and standardized scores.
What tuning finds replaces the config's values for the whole run, and for the bundle's own config; the TOML file
is left as it is, so that the next training knows nothing of it.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from handsell.bundles.manifest import library_versions
from handsell.bundles.store import BundleStore
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.replay import Replay
from handsell.evaluation.report.report import ReportContext, build_report, write_report
from handsell.features.matrix import ranker_features
from handsell.features.store import open_store
from handsell.features.views import service_columns
from handsell.jobs.cluster import connected, spread
from handsell.jobs.progress import Progress
from handsell.jobs.train import publish, windows
from handsell.jobs.train.holdout import HoldoutComparison, compare_with_holdout
from handsell.jobs.train.holdout_fit import fit_holdout, select_strength, tune
from handsell.jobs.train.requests import fetch_user_rows
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.scoring import ServedScores, score, score_served
from handsell.jobs.train.training_run import SERVICE, TrainingRun
from handsell.jobs.tuning import search
from handsell.jobs.tuning.source_selection import question, with_sources
from handsell.ranking.xgboost_ranker import XGBoostRanker


def train(config: Config, promote: bool = True) -> str:
    """Train, evaluate, bundle, and promote if the gate lets it; returns a sentence on what came of it."""
    layout = Layout(config.state)
    asked = with_sources(config, dict.fromkeys(question(config))) if config.picks_sources else config
    ranker_features(asked, asked.retrieval.enabled)  # a slip in ranking.without is told before anything is computed
    folder = layout.runs / time.strftime("%Y%m%dt%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    search.spaces(config)  # a source that cannot be tuned is told before anything runs
    progress = Progress(steps(config))
    with connected(config.jobs.num_cpus):
        spread(_check_names, [(config,)])
        with progress.step("windows") as note:
            counts = windows.cut(config, folder)
            note.text = ", ".join(f"{counts[f'{w}_kept']:,} {w} requests" for w in windows.REQUEST_WINDOWS)
        run = TrainingRun(config, folder, progress, counts)
        _require_requests(run)
        fetch_rows(run)
        run = select_strength(fit_holdout(tune(run)))
        with progress.step("evaluation", f"{counts['test_kept']:,} requests, every source, blend, ranker, funnel"):
            replay = spread(score, [(run.config, folder, run.twin)])[0]
        with progress.step("served", f"{counts['served_kept']:,} users asked at one moment, and after pauses") as note:
            served = score_served(run.config, folder, run.twin)
            note.text = served.sentence
        report = _report(run, replay, served)
        store, bundle_id, twins = _bundle(run, report)
        with progress.step("gate") as note:
            gate = publish.judge_against_live(run, replay, served, store)
            note.text = " ".join((*gate.sentences, *gate.warnings, *twins.warnings))
            if gate.passed and promote:
                store.promote(bundle_id)
    _clean(folder)
    outcome = "is live" if gate.passed and promote else "was not promoted"
    return f"{bundle_id} {outcome}; {report['served']['sentence']} {report['summary']}"


def steps(config: Config) -> int:
    """How many steps a training has."""
    return 11 + 2 * config.ranking.enabled + bool(config.tuning.sources)


def fetch_rows(run: TrainingRun) -> None:
    """The user's row of every request of every window."""
    with run.progress.step("user rows", "point in time, from Feast") as note:
        rows = spread(fetch_user_rows, [(run.config, run.folder, name) for name in windows.ASKED])
        note.text = f"{sum(rows):,} rows"


def _report(run: TrainingRun, replay: Replay, served: ServedScores) -> dict:
    """report.json and report.html in the run's folder."""
    importance = {}
    if run.config.ranking.enabled:
        importance = XGBoostRanker.load(run.twin / "ranker").importance()
    about = ReportContext(
        config=run.config.name,
        created_us=time.time_ns() // 1000,
        data=run.counts,
        windows=publish.window_spans(run.config, run.folder),
        importance=importance,
        seconds=run.progress.seconds,
        libraries=library_versions(),
        notes=publish.notes(run),
        tuning={one.source: one.as_dict() for one in run.tuned},
        served=served.as_dict(),
        by_time_away=served.by_time_away(),
        choices={
            "sources": None if run.choice is None else run.choice.as_dict(),
            "strength": None if run.strength is None else run.strength.as_dict(),
        },
    )
    report = build_report(replay, about)
    write_report(report, run.folder)
    return report


def _bundle(run: TrainingRun, report: dict) -> tuple[BundleStore, str, HoldoutComparison]:
    """Refit on all data, gather every file, write the manifest last, load it back and let it answer beside its twin."""
    config, progress = run.config, run.progress
    store = BundleStore(Layout(config.state).bundles)
    staging = store.new_dir()
    with progress.step("refit", f"the same recipe on all {run.counts['all']:,} events"):
        fit_retrievers(config, run.folder / "all", staging)
        shutil.rmtree(staging / "content")
    with progress.step("bundle") as note:
        publish.gather(run, staging)
        bundle_id = store.publish(staging, publish.manifest(run, report, staging))
        store.verify(bundle_id)
        twins = spread(compare_with_holdout, [(config, run.folder, run.twin, store.local_path(bundle_id))])[0]
        twins.save(run.folder / "twins.json")
        note.text = f"{bundle_id}, verified; slates share {twins.overlap:.0%} of their items with the twin's"
    return store, bundle_id, twins


def _check_names(config: Config) -> None:
    """Features and filters that the config names are there, before anything takes time."""
    Eligibility.of(Snapshot.load(Layout(config.state).snapshot), config)
    open_store(config).check_contract(SERVICE, service_columns(config, SERVICE))


def _require_requests(run: TrainingRun) -> None:
    empty = [w for w in windows.REQUEST_WINDOWS if run.counts[f"{w}_kept"] == 0]
    if empty:
        raise TrainingError(
            f"no request falls into the {', '.join(empty)} window: {json.dumps(run.counts)}. Give more data, widen "
            "split.*_days, or use split.kind = 'leave_last_k'"
        )


def _clean(folder: Path) -> None:
    """Keep the report, the windows and the twin; drop what can be computed again."""
    for name in ("candidates", "item_days", "rows", "examples", "all", "live_recipe"):
        shutil.rmtree(folder / name, ignore_errors=True)
