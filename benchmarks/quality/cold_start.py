"""Cold start on a deployment's test window: items without events in the first ten, and users with 0 to 4 events.

The holdout model is fitted in this process, without Ray, on the windows of the config's `[split]`. The first table has
recall@10 of the relevant items without an event in the fit window, and NDCG@10 of all relevant items. With `--without`,
a second ranker lacks these features (`ranking.without`), and both answer the same requests. More tables say after
which step of the funnel the relevant cold items are gone, how often the best cold item of a request is relevant, and
what it costs to move cold items up (benchmarks/quality/cold_items.py).

The last table answers the requests again as if each user had only the newest 0 to 4 events, and no row. The funnel is
compared with popularity: the better of the source's own list and the most liked items of the fit window. Differences
are paired, and intervals resample users.

    python -m benchmarks cold_start deployments/configs/sequences.toml --data path/to/amazon-beauty
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality.cold_items import ScoredWindow, count_hits, count_losses, price_factors, price_margins
from benchmarks.quality.in_process import build_parser, load_stages_in_time, measure_holdout
from benchmarks.report import write_report
from handsell.bundles.stages import Stages
from handsell.catalog.snapshot import Snapshot
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.intervals import compare, estimate_means
from handsell.evaluation.replay import BLEND, FUNNEL, RANKER, Replay, replay_requests
from handsell.evaluation.replay_scores import HEADLINE, TOP
from handsell.evaluation.served import score_models
from handsell.jobs.progress import Progress
from handsell.jobs.train import train
from handsell.jobs.train.requests import EvaluationRequests, load_evaluation_requests
from handsell.jobs.train.retrievers import count_positives
from handsell.jobs.train.training_run import TrainingRun
from handsell.jobs.tuning.new_users import forget_all_but

WINDOW, POPULARITY = "test", "popularity"
EVENTS = (0, 1, 2, 3, 4)  # of a new user
COLD_RECALL = f"cold_item_recall@{TOP}"


def main() -> None:
    parser = build_parser("cold_start", __doc__)
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="FEATURE", help="compare with a ranker without them"
    )
    options = parser.parse_args()
    measure_holdout(options, "cold_start", lambda run: measure(run, options.without, options.json))


def measure(run: TrainingRun, without: Sequence[str], path: Path | None) -> None:
    """Replay the test window, answer it as new users, and write the report."""
    window = Window.load(run)
    whole = window.replay()
    items = build_item_rows(whole)
    if without:
        other = fit_without(run, without)
        items += compare_items(whole, Window.load(other).replay(), f"without {', '.join(without)}")
    about = {"config": run.config.name, "requests": len(whole), "cold relevant items": whole.cold_relevant}
    about |= {"relevant items": whole.relevant}
    others = {"items without events": items}
    if run.config.ranking.enabled:
        scored = ScoredWindow.of(window.stages, window.asked, window.likes == 0)
        others |= {
            "steps of the funnel": count_losses(scored),
            "how often an item is relevant": count_hits(scored),
            "cold items moved up in the ranker's order": price_margins(scored),
            "cold items moved up in the fused order": price_factors(scored),
        }
    write_report("cold_start", window.score_new_users(), about, path, others)


def fit_without(run: TrainingRun, features: Sequence[str]) -> TrainingRun:
    """Fit another ranker on the same examples without some features."""
    ranking = run.config.ranking.model_copy(update={"without": (*run.config.ranking.without, *features)})
    config = run.config.model_copy(update={"ranking": ranking})
    other = replace(run, config=config, folder=run.folder / "without", progress=Progress(1))
    other.holdout.mkdir(parents=True)
    for name in ("fit", "windows", "rows", "item_days", "examples"):
        (other.folder / name).symlink_to(run.folder / name)
    (other.holdout / "retrievers").symlink_to(run.holdout / "retrievers")
    train.fit_ranker(other)
    return other


class Window:
    """The requests of the test window, and the stages of the holdout model that answer them."""

    def __init__(self, run: TrainingRun, stages: Stages, asked: EvaluationRequests):
        self.run, self.stages, self.asked = run, stages, asked
        self.eligibility = Eligibility.of(stages.snapshot, run.config)
        self.likes = count_positives(run.config, run.folder / "fit")

    @classmethod
    def load(cls, run: TrainingRun) -> Window:
        snapshot = Snapshot.load(Layout(run.config.state).snapshot)
        return cls(run, load_stages_in_time(run), load_evaluation_requests(run.config, run.folder, WINDOW, snapshot))

    def replay(self) -> Replay:
        return replay_requests(
            self.asked.requests, self.asked.relevant, funnel=self.stages.funnel,
            retrievers=self.stages.candidates.retrievers, eligibility=self.eligibility, popularity=self.likes,
        )  # fmt: skip

    def score_new_users(self) -> list[dict[str, Any]]:
        """Build a row per number of events: popularity, funnel and their difference."""
        columns = tuple(pq.read_schema(self.run.folder / "rows" / f"{WINDOW}.parquet").names)
        known = (self.asked.requests.history.item >= 0).sum(axis=1)
        rows = []
        for events in EVENTS:
            some = self.asked.take(known >= events)
            requests = forget_all_but(some.requests, events, columns, self.stages.snapshot, self.run.config)
            most_liked = self._list_most_liked(requests)
            scores = score_models(
                requests, some.relevant, self.stages.funnel, self.stages.candidates.retrievers, self.eligibility,
                {"most liked": most_liked},
            )  # fmt: skip
            best = max((POPULARITY, "most liked"), key=lambda name: np.nan_to_num(np.nanmean(scores.ndcg[name])))
            found = compare(scores.ndcg[FUNNEL], scores.ndcg[best], some.requests.user)
            means = {name: float(np.nanmean(scores.ndcg[name])) for name in (POPULARITY, "most liked", BLEND, RANKER)}
            rows.append(
                {"events": events, "requests": len(some), **means, FUNNEL: found.challenger,
                 "difference": found.difference, "low": found.low, "high": found.high, "outcome": found.outcome}
            )  # fmt: skip
            print(rows[-1], flush=True)
        return rows

    def _list_most_liked(self, requests: Any) -> np.ndarray:
        """Return the eligible items with most likes in the fit window (R, 10), best first."""
        order = np.argsort(-self.likes, kind="stable").astype(np.int32)
        lists = []
        for start in range(0, len(requests), 256):
            mask = self.eligibility.mask(requests.take(slice(start, start + 256)))
            lists += [order[row[order]][:TOP] for row in mask]
        return np.stack(lists)


def build_item_rows(replay: Replay) -> list[dict[str, Any]]:
    """Build a row per model: recall@10 of cold items and NDCG@10 with their intervals."""
    rows = []
    for name, model in replay.models.items():
        found = estimate_means({metric: model.scores[metric] for metric in (COLD_RECALL, HEADLINE)}, replay.user)
        rows.append(
            {"model": name}
            | {f"{metric}{end}": getattr(mean, part) for metric, mean in found.items()
               for part, end in (("mean", ""), ("low", " low"), ("high", " high"))}
        )  # fmt: skip
    return rows


def compare_items(whole: Replay, other: Replay, name: str) -> list[dict[str, Any]]:
    """Build the row of a second funnel, and that of the first one's gain over it."""
    second = {**build_item_rows(other)[list(other.models).index(FUNNEL)], "model": name}
    gain: dict[str, Any] = {"model": "gain over it"}
    for metric in (COLD_RECALL, HEADLINE):
        found = compare(whole.models[FUNNEL].scores[metric], other.models[FUNNEL].scores[metric], whole.user)
        gain |= {metric: found.difference, f"{metric} low": found.low, f"{metric} high": found.high}
    return [second, gain]


if __name__ == "__main__":
    main()
