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
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from handsell.bundles.assemble import source_names
from handsell.bundles.store import BundleStore
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.replay import Replay
from handsell.evaluation.report.report import About, build_report, write_report
from handsell.features.matrix import ranker_features
from handsell.features.views import service_columns
from handsell.jobs.cluster import connected, spread
from handsell.jobs.progress import Progress
from handsell.jobs.train import publish, windows
from handsell.jobs.train.examples import fetch_item_days, find_candidates, write_examples
from handsell.jobs.train.holdout import Twins, compare_twins
from handsell.jobs.train.requests import fetch_user_rows
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.scoring import Served, score, score_served
from handsell.jobs.tuning import search
from handsell.jobs.tuning.source_selection import Choice, choose_sources, question, with_sources
from handsell.jobs.tuning.strength_selection import Strength, choose_strength
from handsell.ranking.fitting import PRIOR
from handsell.ranking.shards import read_coverage
from handsell.ranking.xgboost_ranker import FUSED, XGBoostRanker
from handsell.retrieval.fusion import largest_fused

SERVICE = "ranking_v1"


@dataclass(frozen=True)
class Run:
    """One training: its folder, and what it found on the way."""

    config: Config
    folder: Path
    progress: Progress
    counts: dict[str, int]
    tuned: tuple[search.Tuned, ...] = ()
    choice: Choice | None = None  # of sources, where training picks them
    strength: Strength | None = None  # of re-ranking, likewise

    @property
    def twin(self) -> Path:
        return self.folder / "twin"


def train(config: Config, promote: bool = True) -> str:
    """Train, evaluate, bundle, and promote if the gate lets it; returns a sentence on what came of it."""
    layout = Layout(config.state)
    asked = with_sources(config, dict.fromkeys(question(config))) if config.picks_sources else config
    ranker_features(asked, source_names(asked))  # a slip in ranking.without is told before anything is computed
    folder = layout.runs / time.strftime("%Y%m%dt%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    search.spaces(config)  # a source that cannot be tuned is told before anything runs
    progress = Progress(steps(config))
    with connected(config.jobs.num_cpus):
        spread(_check_names, [(config,)])
        with progress.step("windows") as note:
            counts = windows.cut(config, folder)
            note.text = ", ".join(f"{counts[f'{w}_kept']:,} {w} requests" for w in windows.REQUEST_WINDOWS)
        run = Run(config, folder, progress, counts)
        _require_requests(run)
        fetch_rows(run)
        run = with_strength(fit_twin(tuned(run)))
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


def fetch_rows(run: Run) -> None:
    """The user's row of every request of every window."""
    with run.progress.step("user rows", "point in time, from Feast") as note:
        rows = spread(fetch_user_rows, [(run.config, run.folder, name) for name in windows.ASKED])
        note.text = f"{sum(rows):,} rows"


def tuned(run: Run) -> Run:
    """The run with what tuning found in its config; the run itself where config.tuning names no source."""
    options = run.config.tuning
    if not options.sources:
        return run
    with run.progress.step("tuning", f"{', '.join(options.sources)}, up to {options.budget_s:.0f} s each") as note:
        found = search.tune_sources(run.config, run.folder)
        note.text = "; ".join(map(str, found))
    return replace(run, config=search.with_best(run.config, found), tuned=tuple(found))


def fit_twin(run: Run) -> Run:
    """Retrievers on the retrieval window, the ranker on what they find for the ranker window.

    The run that comes back has the picked sources in its config, where training picks them.
    """
    config, folder, progress = run.config, run.folder, run.progress
    if config.picks_sources:
        asked = ", ".join(question(config))
        with progress.step("retrievers", f"{asked} on {run.counts['fit']:,} events, to pick from") as note:
            config, choice = choose_sources(config, folder, run.twin)
            run, note.text = replace(run, config=config, choice=choice), str(choice)
    else:
        with progress.step("retrievers", f"{', '.join(source_names(config))} on {run.counts['fit']:,} events") as note:
            seconds = fit_retrievers(config, folder / "fit", run.twin)
            note.text = ", ".join(f"{n} {s:.0f} s" for n, s in seconds.items())
    fit_on_candidates(run)
    return run


def with_strength(run: Run) -> Run:
    """The run with the strength of re-ranking that its data affords."""
    with run.progress.step("re-ranking", "how much variety costs on validation requests") as note:
        config, strength = choose_strength(run.config, run.folder, run.twin)
        note.text = str(strength or f"strength {config.reranking.strength} as configured")
    return replace(run, config=config, strength=strength)


def fit_on_candidates(run: Run) -> None:
    """What comes after user rows and retrievers: candidates, their values, and the ranker."""
    config, folder, progress = run.config, run.folder, run.progress
    names = windows.ASKED if config.ranking.enabled else ("test", windows.SERVED)
    with progress.step("candidates", f"{config.retrieval.candidates} for each request") as note:
        note.text = f"{sum(find_candidates(config, folder, run.twin, name) for name in names):,} requests"
    with progress.step("item values", "as of each day, from Feast") as note:
        note.text = f"{sum(spread(fetch_item_days, [(config, folder, name) for name in names])):,} (item, day) pairs"
    if config.ranking.enabled:
        _write_examples(run)
        fit_ranker(run)


def _write_examples(run: Run) -> None:
    config, folder, progress = run.config, run.folder, run.progress
    with progress.step("examples") as note:
        total = sum(write_examples(config, folder, run.twin, name) for name in ("ranker", "validation"))
        ceiling = read_coverage(folder / "examples" / "ranker").recall_ceiling
        note.text = f"{total:,} labeled candidates; {ceiling:.1%} of what users wanted was among the candidates"


def fit_ranker(run: Run) -> None:
    """The ranker on the run's examples, of which it reads the features that its config leaves it."""
    from handsell.jobs.train.ranker import fit_on_ray

    config, folder, progress = run.config, run.folder, run.progress
    with progress.step("ranker", f"XGBoost rank:ndcg on {config.ranking.workers} Ray Train worker(s)") as note:
        features = ranker_features(config, source_names(config))
        examples = folder / "examples"
        largest = largest_fused([getattr(config.retrieval, name).weight for name in source_names(config)])
        cpus = 2.0 if config.ranking.workers == 1 and ray.cluster_resources().get("CPU", 0) >= 4 else 1.0
        fit_on_ray(
            examples / "ranker", examples / "validation", config.ranking, features, run.twin / "ranker", cpus=cpus,
            prior=PRIOR / largest if FUSED in features and largest else 0.0,
        )  # fmt: skip
        note.text = f"{len(features)} features"


def _report(run: Run, replay: Replay, served: Served) -> dict:
    """report.json and report.html in the run's folder."""
    from handsell.bundles.manifest import library_versions

    importance = {}
    if run.config.ranking.enabled:
        importance = XGBoostRanker.load(run.twin / "ranker").importance()
    about = About(
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


def _bundle(run: Run, report: dict) -> tuple[BundleStore, str, Twins]:
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
        twins = spread(compare_twins, [(config, run.folder, run.twin, store.local_path(bundle_id))])[0]
        twins.save(run.folder / "twins.json")
        note.text = f"{bundle_id}, verified; slates share {twins.overlap:.0%} of their items with the twin's"
    return store, bundle_id, twins


def _check_names(config: Config) -> None:
    """Features and filters that the config names are there, before anything takes time."""
    from handsell.features.store import open_store

    Eligibility.of(Snapshot.load(Layout(config.state).snapshot), config)
    open_store(config).check_contract(SERVICE, service_columns(config, SERVICE))


def _require_requests(run: Run) -> None:
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
