"""Publication of a training run: the refitted bundle with its manifest, and its comparison with the live bundle."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from handsell.bundles.gate import GUARD_RAILS, BundleScores, GateDecision, decide_against_newer, decide_promotion
from handsell.bundles.manifest import Manifest, read_library_versions
from handsell.bundles.stages import load_snapshot, load_stages, save_config
from handsell.bundles.store import BundleStore
from handsell.bundles.warm_up_requests import save_warm_up_requests
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.data import splits
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.replay import FUNNEL, Replay, recommend_slates
from handsell.evaluation.replay_scores import HEADLINE, TOP, ModelScores, ReplayScorer
from handsell.features.matrix import select_ranker_features
from handsell.features.views import list_service_columns
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.examples import load_item_values
from handsell.jobs.train.refit import Refit
from handsell.jobs.train.refit_comparison import RefitComparison, compare_refit
from handsell.jobs.train.requests import CHUNK, load_evaluation_requests
from handsell.jobs.train.retrievers import count_positives, read_interactions
from handsell.jobs.train.training_run import SERVICE, TrainingRun
from handsell.onboarding.question_fitting import fit_questions
from handsell.retrieval.index.approximate import read_description
from handsell.retrieval.sharding.shard_catalog import save_shard_catalogs


def publish_refit(run: TrainingRun, report: dict, store: BundleStore, retrievers: Refit) -> tuple[str, RefitComparison]:
    """Finish the refit of the retrievers, publish the bundle, verify it and compare it with the holdout model."""
    config, progress, staging = run.config, run.progress, store.new_dir()
    with progress.step("refit", f"retrievers on all {run.counts['all']:,} events"):
        retrievers.finish(staging)
    with progress.step("bundle") as note:
        _copy_files(run, staging)
        bundle_id = store.publish(staging, build_manifest(run, report, staging))
        store.verify(bundle_id)
        task = (config, run.folder, run.holdout, store.local_path(bundle_id))
        comparison: RefitComparison = run_tasks(compare_refit, [task])[0]
        comparison.save(run.folder / "refit_comparison.json")
        note.text = f"{bundle_id}, verified; {comparison.overlap:.0%} of its slate items are those of the holdout model"
    return bundle_id, comparison


def _copy_files(run: TrainingRun, staging: Path) -> None:
    """Add everything but the retrievers: ranker, snapshot, config, report and warm-up requests."""
    if run.config.ranking.enabled:
        shutil.copytree(run.holdout / "ranker", staging / "ranker")
    shutil.copytree(Layout(run.config.state).snapshot, staging / "snapshot")
    save_config(run.config, staging)
    for name in ("report.json", "report.html"):
        shutil.copy(run.folder / name, staging / name)
    run_tasks(_write_warm_up_requests, [(run.config, run.folder, staging)])
    if run.config.retrieval.shards > 1:
        run_tasks(_write_shard_catalogs, [(run.config.retrieval.shards, staging)])
    if run.config.onboarding.enabled:
        run_tasks(_fit_questions, [(run.config, run.folder / "all", staging)])


def _write_warm_up_requests(config: Config, run: Path, staging: Path) -> None:
    """Save some requests of the test window to the bundle. A Ray task."""
    evaluation = load_evaluation_requests(config, run, "test", load_snapshot(staging))
    save_warm_up_requests(evaluation.requests, staging)


def _write_shard_catalogs(shards: int, staging: Path) -> None:
    """Save the part of the catalog that each shard reads to the bundle. A Ray task."""
    save_shard_catalogs(load_snapshot(staging), shards, staging)


def _fit_questions(config: Config, interactions: Path, staging: Path) -> None:
    """Save the model of the items to ask new users about. A Ray task."""
    fit_questions(read_interactions(config, interactions), config.onboarding).save(staging / "onboarding")


def build_manifest(run: TrainingRun, report: dict, staging: Path) -> Manifest:
    """Build the manifest of the files in `staging`, without their hashes."""
    config = run.config
    meta = _read_meta(config)
    spans = compute_window_spans(config, run.folder)
    return Manifest(
        config=config.name,
        created_us=time.time_ns() // 1000,
        data_start_us=meta["first_us"],
        data_end_us=meta["last_us"] + 1,
        events_through=meta.get("events_through", 0),
        changes_through=meta.get("changes_through", 0),
        windows=spans,
        feature_service=SERVICE,
        service_features=list_service_columns(config, SERVICE),
        features=select_ranker_features(config, config.retrieval.enabled) if config.ranking.enabled else (),
        sources=config.retrieval.enabled,
        shards=config.retrieval.shards,
        metrics={k: v for k, v in report["models"][FUNNEL]["metrics"].items() if v is not None},
        metrics_of="holdout",
        holdout_data_end_us=spans["retrieval"][1],
        git_revision=find_git_revision(),
        libraries=read_library_versions(),
        notes=(*describe_evaluation(run), *describe_indexes(staging)),
    )


def describe_indexes(bundle: Path) -> tuple[str, ...]:
    """Describe the measured recall of each approximate index of a bundle."""
    notes = []
    for path in sorted(bundle.glob("retrievers/*/index")):
        about = read_description(path)
        if about["kind"] != "flat":
            notes.append(
                f"{path.parent.name}: the {about['kind']} index reads {about['nprobe']} of {about['lists']} lists and "
                f"finds {about['recall']:.1%} of the exact {about['k']} nearest of {about['queries']}."
            )
    return tuple(notes)


def compute_window_spans(config: Config, run: Path) -> dict[str, tuple[int, int]]:
    """Return [first, last + 1) of each window in µs; under leave_last_k windows overlap in time."""
    meta = _read_meta(config)
    if config.split.kind == "by_time":
        bounds = splits.Bounds.of(config.split, meta["last_us"])
        edges = [meta["first_us"], bounds.ranker, bounds.validation, bounds.test, meta["last_us"] + 1]
        return {name: (edges[i], edges[i + 1]) for i, name in enumerate(splits.WINDOWS)}
    spans = {"retrieval": (meta["first_us"], meta["last_us"] + 1)}
    for name in splits.WINDOWS[1:]:
        time_us = pq.read_table(run / "windows" / f"{name}.parquet", columns=["time"])["time"].to_numpy()
        spans[name] = (int(time_us.min()), int(time_us.max()) + 1) if len(time_us) else (0, 0)
    return spans


def describe_evaluation(run: TrainingRun) -> tuple[str, ...]:
    """Describe the split and the tuning for readers of the report."""
    if run.config.split.kind == "by_time":
        split = "Windows are cut in time: retrievers are fitted on nothing later than the retrieval window."
    else:
        split = (
            "Windows are each user's last events (leave_last_k): features are as of each request, but retrievers are "
            "fitted on other users' events that are later in time, as is usual on data this thin."
        )
    if not run.tuned:
        return (split,)
    found = "; ".join(map(str, run.tuned))
    return split, f"Tuned by NDCG@10 on validation requests, with models of the retrieval window alone: {found}."


def compare_with_live(run: TrainingRun, replay: Replay, store: BundleStore) -> GateDecision:
    """Compare the holdout model with the live bundle on the test requests that are later than the live one's data.

    The holdout model has seen nothing of the test window. Where the live bundle has, it is allowed to be better.
    """
    live, challenger = store.live(), extract_scores(replay.models[FUNNEL])
    if live is None:
        return decide_promotion(challenger, None, replay.user, run.config.gate)
    first = decide_promotion(challenger, None, replay.user, run.config.gate)
    try:
        path, about = store.local_path(live), store.verify(live)
    except BundleError as error:
        warning = f"The live bundle cannot be read, so there is no comparison: {error}."
        return replace(first, sentences=("Promoted: the live bundle cannot be read.",), warnings=(warning,))
    if not has_same_catalog(path, Layout(run.config.state).snapshot):
        warning = f"The live bundle {live} has other items (another data source), so there is no comparison."
        return replace(first, sentences=("Promoted: it is the first bundle on this data.",), warnings=(warning,))
    scores, is_later = run_tasks(score_live, [(run.config, run.folder, path, about.data_end_us)])[0]
    scores = replace(scores, ndcg=np.where(is_later, scores.ndcg, np.nan))
    decide = decide_promotion if is_later.all() else decide_against_newer
    return decide(challenger, scores, replay.user, run.config.gate)


def compare_with_retrained(run: TrainingRun, replay: Replay, retrained: Replay) -> GateDecision:
    """Compare the holdout model with one of the live bundle's recipe, fitted on the same windows."""
    challenger, live = (extract_scores(one.models[FUNNEL]) for one in (replay, retrained))
    return decide_promotion(challenger, live, replay.user, run.config.gate, retrained=True)


def has_same_catalog(bundle: Path, snapshot: Path) -> bool:
    """Return whether the bundle's items are the first ones of the present catalog, whose numbers never change."""
    return Snapshot.load(snapshot).items.starts_with(load_snapshot(bundle).items)


def score_live(config: Config, run: Path, bundle: Path, data_end_us: int) -> tuple[BundleScores, np.ndarray]:
    """Score the live bundle on the test requests; return also which are later than its data, (R,). A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    evaluation = load_evaluation_requests(config, run, "test", snapshot)
    stages = load_stages(bundle, snapshot=snapshot, items=load_item_values(config, run, "test", snapshot))
    eligibility = Eligibility.of(snapshot, config)
    scorer = ReplayScorer(
        eligibility.find_reachable(evaluation.requests), count_positives(config, run / "fit"), snapshot
    )
    for start in range(0, len(evaluation), CHUNK):
        chunk = evaluation.take(slice(start, start + CHUNK))
        scorer.start_chunk(chunk.relevant, chunk.requests)
        scorer.add(FUNNEL, FUNNEL, TOP, lambda r=chunk.requests: recommend_slates(stages.funnel, r))  # type: ignore[misc]
        scorer.finish_chunk()
    live = scorer.finish(evaluation.requests, {}).models[FUNNEL]
    return extract_scores(live), evaluation.requests.time >= data_end_us


def extract_scores(contender: ModelScores) -> BundleScores:
    """Return the metrics that the gate compares."""
    values = contender.means()
    return BundleScores(
        contender.scores[HEADLINE], contender.coverage, {name: values[f"{name}@{TOP}"] for name in GUARD_RAILS}
    )


def find_git_revision(file: Path = Path(__file__)) -> str | None:
    """Return the revision of this source; None where it is installed, even inside the repository of somebody else."""
    command = ["git", "rev-parse", "HEAD", f"HEAD:./{file.name}"]  # the second one fails if the file is not tracked
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent)
    except OSError:
        return None
    return done.stdout.split()[0] if done.returncode == 0 else None


def _read_meta(config: Config) -> dict[str, Any]:
    return read_json(Layout(config.state).data_meta, f"run `handsell data {config.source}` again")
