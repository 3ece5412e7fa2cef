"""Training: from feature values to a promoted bundle, on the Ray cluster that runs this process.

    windows → user rows → tuning (if configured) → retrievers of the holdout model → candidates → item values
            → examples → ranker → strength of re-ranking → evaluation of the holdout model
            → refit on all data → bundle → gate → promotion

On small data the refit begins when the sources have been chosen, in a process of its own.

The holdout model is fitted on the past and evaluated on the windows after it. The bundle has the same settings: its
retrievers are refitted on all data, and its ranker is the holdout's, whose source features are only ranks and
standardized scores. Settings that training chooses replace the config's for this run and are stored in the bundle;
the TOML file does not change.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

from handsell.bundles.gate import GateDecision, check_absence_loss
from handsell.bundles.manifest import read_library_versions
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import load_bundle_config
from handsell.bundles.store import BundleStore
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.replay import FUNNEL, Replay
from handsell.evaluation.report.report import ReportContext, build_report, write_report
from handsell.evaluation.served import loss_by_pause
from handsell.features.matrix import select_ranker_features
from handsell.features.store import open_store
from handsell.features.views import list_service_columns
from handsell.jobs.cluster import connect, is_in_process, open_cluster, run_tasks
from handsell.jobs.progress import Progress
from handsell.jobs.train import publication
from handsell.jobs.train.devices import takes_gpus
from handsell.jobs.train.evaluation import ServedScores, evaluate_served, replay_window
from handsell.jobs.train.examples import fetch_item_values, find_candidates, write_examples
from handsell.jobs.train.origins import count_origins, describe_origins
from handsell.jobs.train.ranker import fit_ranker_in_process, plan_ranker
from handsell.jobs.train.recipe import has_same_recipe
from handsell.jobs.train.refit import Refit, start_refit
from handsell.jobs.train.requests import fetch_user_rows
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.training_run import SERVICE, TrainingRun
from handsell.jobs.train.windows import REQUEST_SETS, REQUEST_WINDOWS, cut_windows
from handsell.jobs.tuning.order_selection import choose_order_without_events
from handsell.jobs.tuning.source_selection import list_selectable_sources, select_sources, with_sources
from handsell.jobs.tuning.strength_selection import choose_strength
from handsell.jobs.tuning.tuned_source import load_search_spaces, with_best_params
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.shards import read_coverage


def train(config: Config, promote: bool = True, progress: Progress | None = None) -> str:
    """Train, evaluate, bundle, and promote the bundle if it passes its gate; return the outcome as a sentence.

    `progress` is that of a job whose last steps are these, see `count_steps`.
    """
    _check_settings(config)
    folder = Layout(config.state).runs / time.strftime("%Y%m%dt%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    run = TrainingRun(config, folder, progress or Progress(count_steps(config)))
    with open_cluster(config):
        run_tasks(_check_features, [(config,)])
        run = split_into_windows(run)
        fetch_rows(run)
        run = tune(run)
        run = fit_sources(run)
        with start_refit(run) as retrievers:
            run, decision, bundle_id, report = _evaluate_and_publish(run, config, promote, retrievers)
    _remove_intermediate_files(run)
    outcome = "is live" if decision.passed and promote else "was not promoted"
    return f"{bundle_id} {outcome}; {report['served']['sentence']} {report['summary']}"


def _evaluate_and_publish(
    run: TrainingRun, given: Config, promote: bool, retrievers: Refit
) -> tuple[TrainingRun, GateDecision, str, dict]:
    """Fit and evaluate all that comes after the sources, publish the bundle, and promote it if it passes its gate.

    `given` is the config without the choices of this training. Returns also the bundle's id and the report.
    """
    fit_on_candidates(run)
    run = choose_strength_of_reranking(run)
    with run.progress.step("evaluation", f"{run.counts['test_kept']:,} requests: sources, blend, ranker, funnel"):
        replay = _replay(run)
    with run.progress.step("served", f"{run.counts['served_kept']:,} users, at one time and after pauses") as note:
        served = evaluate_served(run.config, run.folder, run.holdout)
        note.text = served.sentence
    run = replace(run, counts=run.counts | count_origins(run.config, run.folder))
    report = _report(run, replay, served)
    store = open_bundles(given)
    bundle_id, refit = publication.publish_refit(run, report, store, retrievers)
    with run.progress.step("gate") as note:
        live = store.live()
        decision = _decide_promotion(run, given, replay, served, store)
        note.text = " ".join((*decision.sentences, *decision.warnings, *refit.warnings))
        if decision.passed and promote:
            store.promote(bundle_id, instead_of=live)
    return run, decision, bundle_id, report


def count_steps(config: Config) -> int:
    return 11 + 2 * config.ranking.enabled + bool(config.tuning.sources)


def _check_settings(config: Config) -> None:
    """Raise ConfigError for settings that would fail late: a feature of ranking.without, a source of tuning.sources."""
    candidates = (
        with_sources(config, dict.fromkeys(list_selectable_sources(config))) if config.picks_sources else config
    )
    select_ranker_features(candidates, candidates.retrieval.enabled)
    load_search_spaces(config)


def _check_features(config: Config) -> None:
    """Raise an error for filters of columns or Feast features that do not exist. A Ray task."""
    Eligibility.of(Snapshot.load(Layout(config.state).snapshot), config)
    open_store(config).check_contract(SERVICE, list_service_columns(config, SERVICE))


def split_into_windows(run: TrainingRun) -> TrainingRun:
    """Write the files of every window; raise TrainingError if a window has no request."""
    with run.progress.step("windows") as note:
        counts = cut_windows(run.config, run.folder)
        note.text = ", ".join(f"{counts[f'{w}_kept']:,} {w} requests" for w in REQUEST_WINDOWS)
    if empty := [w for w in REQUEST_WINDOWS if counts[f"{w}_kept"] == 0]:
        raise TrainingError(
            f"expected requests in every window, got none in {', '.join(empty)}: {json.dumps(counts)}. Give more data, "
            "widen split.*_days, or use split.kind = 'leave_last_k'"
        )
    return replace(run, counts=counts)


def fetch_rows(run: TrainingRun) -> None:
    """Fetch the user row of every request from Feast."""
    with run.progress.step("user rows", "point in time, from Feast") as note:
        rows = run_tasks(fetch_user_rows, [(run.config, run.folder, part) for part in _share(REQUEST_SETS)])
        note.text = f"{sum(rows):,} rows"


def _share(windows: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the windows of each task that asks Feast: all at once in this process, else each on a worker of its own.

    A point-in-time join takes about a second, however few rows it has.
    """
    return [windows] if is_in_process() else [(window,) for window in windows]


def tune(run: TrainingRun) -> TrainingRun:
    """Search hyper-parameters for the sources of config.tuning; return a run with the best ones in its config."""
    options = run.config.tuning
    if not options.sources:
        return run
    from handsell.jobs.tuning.search import tune_sources  # Ray Tune takes seconds to import

    about = f"{', '.join(options.sources)}, up to {options.budget_s:.0f} s each"
    with run.progress.step("tuning", about) as note, connect(run.config.jobs.num_cpus):
        found = tune_sources(run.config, run.folder)
        note.text = "; ".join(map(str, found))
    return replace(run, config=with_best_params(run.config, found), tuned=tuple(found))


def fit_holdout(run: TrainingRun) -> TrainingRun:
    """Fit retrievers on the retrieval window and a ranker on their candidates for the ranker window.

    Where training picks the sources, the returned run has them in its config.
    """
    run = fit_sources(run)
    fit_on_candidates(run)
    return run


def fit_sources(run: TrainingRun) -> TrainingRun:
    """Fit retrievers on the retrieval window.

    Where training picks the sources, the returned run has them in its config.
    """
    config, folder, events = run.config, run.folder, f"{run.counts['fit']:,} events"
    if config.picks_sources:
        names = ", ".join(list_selectable_sources(config))
        with run.progress.step("retrievers", f"{names} on {events}, to pick from") as note:
            config, selection = select_sources(config, folder, run.holdout)
            run, note.text = replace(run, config=config, selection=selection), str(selection)
    else:
        with run.progress.step("retrievers", f"{', '.join(config.retrieval.enabled)} on {events}") as note:
            seconds = fit_retrievers(config, folder / "fit", run.holdout)
            note.text = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    return run


def fit_on_candidates(run: TrainingRun) -> None:
    """Find the candidates of every request with the fitted retrievers, and fit the ranker on them."""
    config, folder, progress = run.config, run.folder, run.progress
    names = list_request_sets(config)
    with progress.step("candidates", f"{config.retrieval.candidates} for each request") as note:
        note.text = f"{sum(find_candidates(config, folder, run.holdout, name) for name in names):,} requests"
    with progress.step("item values", "as of each day, from Feast") as note:
        fetched = run_tasks(fetch_item_values, [(config, folder, part) for part in _share(names)])
        note.text = f"{sum(fetched):,} (item, day) pairs"
    if not config.ranking.enabled:
        return
    with progress.step("examples") as note:
        total = sum(write_examples(config, folder, run.holdout, name) for name in ("ranker", "validation"))
        ceiling = read_coverage(folder / "examples" / "ranker").recall_ceiling
        note.text = f"{total:,} labeled candidates, which include {ceiling:.1%} of the relevant items"
    fit_ranker(run)


def list_request_sets(config: Config) -> tuple[str, ...]:
    """Return the names of the request sets that need candidates and item values.

    The ranker window trains the ranker; the validation window stops its training and chooses the strength of
    re-ranking.
    """
    learns = config.ranking.enabled
    needed = {"ranker": learns, "validation": learns or config.reranking.strength == "auto"}
    return tuple(name for name in REQUEST_SETS if needed.get(name, True))


def fit_ranker(run: TrainingRun) -> None:
    """Fit the ranker on the run's examples, with the features that its config leaves."""
    config = run.config
    with run.progress.step("ranker", f"{config.ranking.model}, {config.ranking.workers} worker(s)") as note:
        task = plan_ranker(config, run.folder, run.holdout / "ranker")
        workers = config.ranking.workers
        if is_in_process() and workers == 1 and config.jobs.use_gpu is not True:
            fit_ranker_in_process(*task, threads=2 if config.jobs.num_cpus >= 4 else 1)
        else:
            import ray  # with Ray Train, seconds to import

            from handsell.jobs.train.distributed.ranker import fit_ranker_on_ray

            with connect(config.jobs.num_cpus):
                cpus = 2.0 if workers == 1 and ray.cluster_resources().get("CPU", 0) >= 4 else 1.0
                fit_ranker_on_ray(*task, cpus=cpus, gpu=takes_gpus(config, workers))
        note.text = f"{len(task[3])} features"
        if choose_order_without_events(config, run.folder, run.holdout):
            note.text += ", also for users without events"


def choose_strength_of_reranking(run: TrainingRun) -> TrainingRun:
    """Return a run with the strength of re-ranking in its config."""
    with run.progress.step("re-ranking", "how much NDCG variety costs on validation requests") as note:
        config, strength = choose_strength(run.config, run.folder, run.holdout)
        note.text = str(strength or f"strength {config.reranking.strength} as configured")
    return replace(run, config=config, strength=strength)


def _replay(run: TrainingRun) -> Replay:
    return run_tasks(replay_window, [(run.config, run.folder, run.holdout)])[0]


def _report(run: TrainingRun, replay: Replay, served: ServedScores) -> dict:
    """Write report.json and report.html to the run's folder; return the report."""
    importance = {}
    if run.config.ranking.enabled:
        importance = load_ranker(run.holdout / "ranker").importance()
    about = ReportContext(
        config=run.config.name,
        created_us=time.time_ns() // 1000,
        data=run.counts,
        windows=publication.compute_window_spans(run.config, run.folder),
        importance=importance,
        seconds=run.progress.seconds,
        libraries=read_library_versions(),
        notes=(*publication.describe_evaluation(run), describe_origins(run.counts)),
        tuning={one.source: one.as_dict() for one in run.tuned},
        served=served.as_dict(),
        by_time_away=served.by_time_away(),
        choices={
            "sources": None if run.selection is None else run.selection.as_dict(),
            "strength": None if run.strength is None else run.strength.as_dict(),
        },
    )
    report = build_report(replay, about)
    write_report(report, run.folder)
    return report


def _decide_promotion(
    run: TrainingRun, given: Config, replay: Replay, served: ServedScores, store: BundleStore
) -> GateDecision:
    """Compare the holdout model with the live bundle, or with its retrained recipe where they share few requests.

    `given` is the config without the choices of this training.
    """
    decision = publication.compare_with_live(run, replay, store)
    if decision.outcome == "insufficient":
        recipe = load_bundle_config(store.local_path(str(store.live())))
        same = has_same_recipe(given, recipe)  # on the same data it gives the same model
        other = replay if same else replay_recipe(run, recipe)
        decision = publication.compare_with_retrained(run, replay, other)
    return check_absence_loss(decision, loss_by_pause(served.by_pause)[FUNNEL], run.config.gate)


def replay_recipe(run: TrainingRun, recipe: Config) -> Replay:
    """Fit a holdout model with the settings of another config on the run's windows, and replay the test window."""
    parts = {part: getattr(recipe, part) for part in ("retrieval", "ranking", "reranking")}
    config = run.config.model_copy(update=parts)
    progress = Progress(3 + 2 * config.ranking.enabled)
    other = replace(run, config=config, folder=run.folder / "live_recipe", progress=progress)
    other.folder.mkdir()
    for name in ("fit", "windows", "rows"):
        (other.folder / name).symlink_to(run.folder / name)
    return _replay(fit_holdout(other))


def _remove_intermediate_files(run: TrainingRun) -> None:
    """Keep the report, the windows and the holdout model; remove what can be computed again."""
    for name in ("candidates", "item_days", "rows", "examples", "all", "live_recipe"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
