"""What turns a trained run into a bundle: its files, its manifest and its gate."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.bundles.gate import RAILS, Gate, Lists, judge, judge_absence
from handsell.bundles.manifest import Manifest, library_versions
from handsell.bundles.stages import load_bundle_config, load_snapshot, load_stages, save_config
from handsell.bundles.store import BundleStore
from handsell.bundles.warm_up_requests import save_warm_up_requests
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data import splits
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay import FUNNEL, Replay, recommend_slates
from handsell.evaluation.replay_scores import HEADLINE, TOP, ModelScores, ReplayScorer
from handsell.evaluation.served import loss_by_pause
from handsell.features.matrix import ranker_features
from handsell.features.views import service_columns
from handsell.jobs.cluster import spread
from handsell.jobs.train.examples import day_values
from handsell.jobs.train.holdout_fit import retrain
from handsell.jobs.train.requests import CHUNK
from handsell.jobs.train.retrievers import popularity_counts
from handsell.jobs.train.scoring import ServedScores, judged_requests
from handsell.jobs.train.training_run import SERVICE, TrainingRun
from handsell.retrieval.index.approximate import read_description


def gather(run: TrainingRun, staging: Path) -> None:
    """Everything beside the refitted retrievers: ranker, snapshot, config, report and recorded requests."""
    if run.config.ranking.enabled:
        shutil.copytree(run.twin / "ranker", staging / "ranker")
    shutil.copytree(Layout(run.config.state).snapshot, staging / "snapshot")
    save_config(run.config, staging)
    for name in ("report.json", "report.html"):
        shutil.copy(run.folder / name, staging / name)
    spread(record_requests, [(run.config, run.folder, staging)])


def record_requests(config: Config, run: Path, staging: Path) -> None:
    """Some requests of the test window, for replicas to warm up with. A Ray task."""
    save_warm_up_requests(judged_requests(config, run, "test", load_snapshot(staging)).requests, staging)


def manifest(run: TrainingRun, report: dict, staging: Path) -> Manifest:
    """The passport of what lies in `staging`."""
    config, meta = run.config, json.loads(Layout(run.config.state).data_meta.read_text())
    spans = window_spans(config, run.folder)
    return Manifest(
        config=config.name,
        created_us=time.time_ns() // 1000,
        data_start_us=meta["first_us"],
        data_end_us=meta["last_us"] + 1,
        windows=spans,
        feature_service=SERVICE,
        service_features=service_columns(config, SERVICE),
        features=ranker_features(config, config.retrieval.enabled) if config.ranking.enabled else (),
        sources=config.retrieval.enabled,
        metrics={k: v for k, v in report["models"][FUNNEL]["metrics"].items() if v is not None},
        metrics_of="twin",
        twin_data_end_us=spans["retrieval"][1],
        git_revision=_revision(),
        libraries=library_versions(),
        notes=(*notes(run), *index_notes(staging)),
    )


def index_notes(bundle: Path) -> tuple[str, ...]:
    """What each approximate index of a bundle was measured to find."""
    told = []
    for path in sorted(bundle.glob("retrievers/*/index")):
        about = read_description(path)
        if about["kind"] != "flat":
            told.append(
                f"{path.parent.name}: the {about['kind']} index reads {about['nprobe']} of {about['lists']} lists and "
                f"finds {about['recall']:.1%} of the exact {about['k']} nearest of {about['queries']}."
            )
    return tuple(told)


def window_spans(config: Config, run: Path) -> dict[str, tuple[int, int]]:
    """Window → [first, last + 1) µs of what fell into it; under leave_last_k they overlap in time."""
    meta = json.loads(Layout(config.state).data_meta.read_text())
    if config.split.kind == "by_time":
        bounds = splits.Bounds.of(config.split, meta["last_us"])
        edges = [meta["first_us"], bounds.ranker, bounds.validation, bounds.test, meta["last_us"] + 1]
        return {name: (edges[i], edges[i + 1]) for i, name in enumerate(splits.WINDOWS)}
    spans = {"retrieval": (meta["first_us"], meta["last_us"] + 1)}
    for name in splits.WINDOWS[1:]:
        time_us = pq.read_table(run / "windows" / f"{name}.parquet", columns=["time"])["time"].to_numpy()
        spans[name] = (int(time_us.min()), int(time_us.max()) + 1) if len(time_us) else (0, 0)
    return spans


def notes(run: TrainingRun) -> tuple[str, ...]:
    """What a reader of the figures must know about the split, and about what was tuned."""
    if not run.tuned:
        return split_notes(run.config)
    found = "; ".join(map(str, run.tuned))
    return (
        *split_notes(run.config),
        f"Tuned by NDCG@10 on validation requests, with models of the retrieval window alone: {found}.",
    )


def split_notes(config: Config) -> tuple[str, ...]:
    """What a reader of the figures must know about the split."""
    if config.split.kind == "by_time":
        return ("Windows are cut at moments in time: nothing later than the retrieval window taught a retriever.",)
    return (
        "Windows are each user's last events (leave_last_k): features are as of each request, but a retriever has "
        "seen other users' events that are later in time, as is usual on data this thin.",
    )


def judge_against_live(run: TrainingRun, replay: Replay, served: ServedScores, store: BundleStore) -> Gate:
    """The gate: challenger and live bundle on the same requests, and what the challenger loses with time."""
    loss = loss_by_pause(served.by_pause)[FUNNEL]
    return judge_absence(_judge_against_live(run, replay, store), loss, run.config.gate)


def _judge_against_live(run: TrainingRun, replay: Replay, store: BundleStore) -> Gate:
    """Both on the same requests, all later than the live one's data."""
    live, ours = store.live(), replay.models[FUNNEL]
    challenger = lists_of(ours)
    if live is None:
        return judge(challenger, None, replay.user, run.config.gate)
    path, about = store.local_path(live), store.verify(live)
    if not same_catalog(path, Layout(run.config.state).snapshot):
        first = judge(challenger, None, replay.user, run.config.gate)
        other = f"The live bundle {live} is of other items (another source of data): there is nothing to compare."
        return replace(first, sentences=("Promoted: it is the first bundle on this data.",), warnings=(other,))
    theirs, later = spread(score_live, [(run.config, run.folder, path, about.data_end_us)])[0]
    known = replace(theirs, ndcg=np.where(later, theirs.ndcg, np.nan))
    verdict = judge(challenger, known, replay.user, run.config.gate)
    if verdict.outcome != "insufficient":
        return verdict
    return judge(challenger, _recipe_retrained(run, replay, path), replay.user, run.config.gate, retrained=True)


def same_catalog(bundle: Path, snapshot: Path) -> bool:
    """Whether the bundle's items are the first ones of today's catalog: numbers never change within one."""
    then, now = load_snapshot(bundle).items.encoded, Snapshot.load(snapshot).items.encoded
    return len(then) <= len(now) and bool((then == now[: len(then)]).all())


def score_live(config: Config, run: Path, bundle: Path, data_end_us: int) -> tuple[Lists, np.ndarray]:
    """What the live bundle answers to the test requests, and (R,) bool which are later than its data. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    judged = judged_requests(config, run, "test", snapshot)
    stages = load_stages(bundle, snapshot=snapshot, items=day_values(config, run, "test", snapshot))
    eligibility = Eligibility.of(snapshot, config)
    scorer = ReplayScorer(eligibility.reachable(judged.requests), popularity_counts(config, run / "fit"), snapshot)
    for start in range(0, len(judged.requests), CHUNK):
        rows = slice(start, start + CHUNK)
        asked = judged.requests.take(rows)
        scorer.start_chunk(judged.relevant.take(rows), asked)
        scorer.add(FUNNEL, FUNNEL, TOP, lambda r=asked: recommend_slates(stages.funnel, r))  # type: ignore[misc]
        scorer.finish_chunk()
    live = scorer.finish(judged.requests, {}).models[FUNNEL]
    return lists_of(live), judged.requests.time >= data_end_us


def lists_of(contender: ModelScores) -> Lists:
    """What the gate looks at."""
    values = {**{name: mean_known(scores) for name, scores in contender.scores.items()}, **contender.whole}
    return Lists(contender.scores[HEADLINE], contender.coverage, {name: values[f"{name}@{TOP}"] for name in RAILS})


def _recipe_retrained(run: TrainingRun, replay: Replay, live: Path) -> Lists:
    """The live bundle's recipe, fitted up to the challenger's cut-off, on the challenger's test requests.

    The same recipe on the same data gives the same model, so it is not trained twice.
    """
    recipe = load_bundle_config(live)
    if same_recipe(recipe, run.config):
        return lists_of(replay.models[FUNNEL])
    return lists_of(retrain(run, recipe).models[FUNNEL])


def same_recipe(a: Config, b: Config) -> bool:
    """Whether two configs train the same models from the same data."""
    return all(getattr(a, part) == getattr(b, part) for part in ("retrieval", "ranking", "reranking", "features"))


def _revision() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
