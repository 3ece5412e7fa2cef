"""Weak places of slates: items unlike the history and with a low score, where better candidates were left out.

The holdout model is fitted in this process, without Ray, on the windows of the config's `[split]`. For each step of the
funnel, a table has the share of places whose item has a tag of a liked item of the history, the share of places whose
score is below a half and a tenth of the best candidate that was left out, and what training reports besides. Slates are
made with several floors (`reranking.floor`), each with the strength that training would choose for it. A floor is
chosen on the validation window; the test window has only the slates without a floor and with that of the config.

    python -m benchmarks weak_places deployments/configs/examples/trivago.toml --data converted/trivago
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np

from benchmarks.quality.in_process import build_parser, load_stages_in_time, measure_holdout
from benchmarks.report import write_report
from handsell.bundles.stages import Stages
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.evaluation.intervals import compare
from handsell.evaluation.list_metrics import intra_list_diversity, item_weights
from handsell.evaluation.metrics import gains, mean_known, ndcg, recall
from handsell.evaluation.replay_scores import TOP, cut_or_pad
from handsell.jobs.train.requests import EvaluationRequests, load_evaluation_requests
from handsell.jobs.train.training_run import TrainingRun
from handsell.jobs.tuning.strength_selection import choose_strength
from handsell.reranking.stage import LocalReranking

FLOORS = (0.0, 0.3, 0.5, 0.7, 0.9)
CHUNK, MOST = 128, 1_000
PARTS = (0.5, 0.1)  # of the best score left out, below which a place is weak
RANKER = "ranker"

Lists = dict[str, tuple[np.ndarray, np.ndarray]]  # name → items (B, 10) and scores (B, 10)


def main() -> None:
    parser = build_parser("weak_places", __doc__)
    options = parser.parse_args()
    measure_holdout(options, "weak_places", lambda run: measure(run, options.json))


def measure(run: TrainingRun, path: Path | None) -> None:
    """Compare floors on the validation window, and that of the config with none on the test window."""
    stages = load_stages_in_time(run)
    chosen = {floor: set_floor(run, floor) for floor in sorted({*FLOORS, run.config.reranking.floor})}
    validation = Window.load(run, stages, "validation").measure(list(chosen.values()))
    test = Window.load(run, stages, "test").measure([chosen[0.0], chosen[run.config.reranking.floor]])
    about = {"config": run.config.name, "floor": run.config.reranking.floor}
    write_report("weak_places", test, about, path, {"validation": validation})


def set_floor(run: TrainingRun, floor: float) -> Config:
    """Return the config with a floor and the strength that training chooses with it."""
    config = run.config.model_copy(update={"reranking": run.config.reranking.model_copy(update={"floor": floor})})
    return choose_strength(config, run.folder, run.holdout)[0]


@dataclass(frozen=True)
class Window:
    """Requests of a window, and the stages of the holdout model that answer them."""

    stages: Stages
    asked: EvaluationRequests
    name: str

    @classmethod
    def load(cls, run: TrainingRun, stages: Stages, name: str) -> Window:
        asked = load_evaluation_requests(run.config, run.folder, name, stages.snapshot).sample(MOST)
        return cls(stages, asked, name)

    def measure(self, configs: Sequence[Config]) -> list[dict[str, Any]]:
        """Build a row for the sources' order, the ranker and the slates of each config."""
        lists, left_out = self._make_lists(configs)
        liked = self._find_liked_tags()
        base = self._score(lists[RANKER][0])
        rows = []
        for name, (items, scores) in lists.items():
            score = self._score(items)
            found = compare(score["ndcg"], base["ndcg"], self.asked.requests.user)
            row: dict[str, Any] = {"window": self.name, "lists": name}
            row |= {key: mean_known(values) for key, values in score.items()}
            row |= {"to ranker %": 100 * found.relative, "low": 100 * found.relative_low}
            row["tag in history"] = float(self._share_tags(items, liked).mean())
            rows.append(row | {f"< {part:g} of left out": _share_below(scores, left_out[name], part) for part in PARTS})
        return rows

    def _make_lists(self, configs: Sequence[Config]) -> tuple[Lists, dict[str, np.ndarray]]:
        """Return the lists, and the best score (B,) of the ranker's 50 that each leaves out."""
        made: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        rerankings = {_name(config): self._build_reranking(config) for config in configs}
        stages, config = self.stages, self.stages.config
        for start in range(0, len(self.asked), CHUNK):
            requests = self.asked.requests.take(slice(start, start + CHUNK))
            found = run_local(stages.candidates.candidates(requests, config.retrieval.candidates))
            ranked = run_local(stages.ranking.rank(requests, found, config.ranking.ranked))
            lists = {"blend": (found.item[:, :TOP], None), RANKER: (ranked.item[:, :TOP], ranked.score[:, :TOP])}
            for name, reranking in rerankings.items():
                slates = run_local(reranking.rerank(requests, ranked, TOP))
                lists[name] = slates.item, slates.score
            for name, (items, scores) in lists.items():
                items = cut_or_pad(items, TOP)
                scores = np.full(items.shape, np.nan) if scores is None else cut_or_pad(scores, TOP, 0)
                out = (ranked.item[:, :, None] != items[:, None]).all(axis=2) & (ranked.item != NONE)
                best = np.where(out, ranked.score, 0).max(axis=1, initial=0)
                made.setdefault(name, []).append((items, scores, best))
        joined = {name: [np.concatenate(one) for one in zip(*parts, strict=True)] for name, parts in made.items()}
        return {n: (p[0], p[1]) for n, p in joined.items()}, {n: p[2] for n, p in joined.items()}

    def _build_reranking(self, config: Config) -> LocalReranking:
        stage = self.stages.reranking
        assert isinstance(stage, LocalReranking)
        return stage.with_config(config, None)

    def _score(self, items: np.ndarray) -> dict[str, np.ndarray]:
        gain, relevant = gains(items, self.asked.relevant), self.asked.relevant
        return {
            "ndcg": ndcg(gain, relevant, TOP),
            "recall": recall(gain, relevant, TOP),
            "diversity": intra_list_diversity(items, self.stages.snapshot.tag_matrix),
        }

    def _find_liked_tags(self) -> Any:
        """Return (B, number of tags), above 0 for the tags of the history's liked items."""
        history, snapshot = self.asked.requests.history, self.stages.snapshot
        return item_weights(history.item, len(snapshot), history.weight) @ snapshot.tag_matrix

    def _share_tags(self, items: np.ndarray, liked: Any) -> np.ndarray:
        """Return (B, n) whether each item has a liked tag."""
        tags = self.stages.snapshot.tag_matrix
        shared = [np.asarray(tags[np.maximum(column, 0)].multiply(liked).sum(axis=1)).ravel() for column in items.T]
        return (np.stack(shared, axis=1) > 0) & (items != NONE)


def _name(config: Config) -> str:
    return f"slates, floor {config.reranking.floor:g}, strength {config.reranking.strength}"


def _share_below(scores: np.ndarray, best: np.ndarray, part: float) -> float | None:
    """Return the share of the places whose score (B, n) is below a part of the best left out (B,)."""
    return None if np.isnan(scores).any() else float((scores < part * best[:, None]).mean())


if __name__ == "__main__":
    main()
