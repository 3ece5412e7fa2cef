"""Ranking with a first pass of few trees: results and CPU time, against the whole ranker on all candidates.

    make up && python -m benchmarks first_look

Requests and ranker are those of the live bundle. The share of requests whose first ten items change is an upper bound
of the loss of NDCG@10.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.report import write_report
from benchmarks.serving.smoke import sample_users
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import Stages, apply_choices, load_stages
from handsell.config import load_config
from handsell.core.batches import Candidates, Requests
from handsell.core.funnel import run_local
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.store import open_store
from handsell.ranking.stage import LocalRanking

TOP = 10


def build_requests(stages: Stages, users: list[str], store) -> list[tuple[Requests, Candidates]]:
    """Build each user's request at the end of the data, and find its candidates."""
    home, now = stages.config.surface_names.index("home"), np.array([stages.snapshot.as_of])
    found = []
    for user in users:
        rows = store.online_users([user])
        request = build_requests_from_rows(rows, stages.snapshot, stages.config, now, np.array([home], np.int8))
        found.append((request, run_local(stages.candidates.candidates(request, stages.config.retrieval.candidates))))
    return found


def set_first_pass(ranking: LocalRanking, trees: int, keeps: int) -> LocalRanking:
    settings = ranking.config.ranking.model_copy(update={"first_look_trees": trees, "first_look_keeps": keeps})
    return replace(ranking, config=ranking.config.model_copy(update={"ranking": settings}))


def rank_all(ranking: LocalRanking, found: list, k: int) -> tuple[list[np.ndarray], float]:
    """Return the k best items of each request, and the median CPU ms of a request."""
    lists, took = [], []
    for request, candidates in found:
        begun = time.thread_time()
        lists.append(run_local(ranking.rank(request, candidates, k)).item[0])
        took.append(time.thread_time() - begun)
    return lists, float(np.median(took)) * 1e3


def compare_lists(whole: list[np.ndarray], reduced: list[np.ndarray]) -> dict[str, float]:
    same = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(whole, reduced, strict=True)]
    changed = [a[:TOP].tolist() != b[:TOP].tolist() for a, b in zip(whole, reduced, strict=True)]
    return {"kept of the best": float(np.mean(same)), f"first {TOP} changed": float(np.mean(changed))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks first_look", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--trees", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--keeps", type=int, nargs="+", default=[100, 200, 300, 500])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = load_config(options.config)
    bundles = open_bundles(config)
    live = bundles.live()
    if live is None:
        sys.exit(f"no bundle of {config.name} is live: run `make up` to train one")
    path = bundles.local_path(live)
    stages = load_stages(path, apply_choices(config, path))
    if not isinstance(stages.ranking, LocalRanking):
        sys.exit(f"bundle {live} has no ranker (ranking.enabled = false)")
    found, k = build_requests(stages, sample_users(config, options.users), open_store(config)), config.ranking.ranked
    rank_all(stages.ranking, found[:20], k)
    whole, cpu = rank_all(set_first_pass(stages.ranking, 0, k), found, k)
    rows = [{"trees": "all", "keeps": "all", "CPU ms": cpu, **compare_lists(whole, whole)}]
    for trees in options.trees:
        for keeps in options.keeps:
            reduced, cpu = rank_all(set_first_pass(stages.ranking, trees, keeps), found, k)
            rows.append({"trees": str(trees), "keeps": str(keeps), "CPU ms": cpu, **compare_lists(whole, reduced)})
    about = {"bundle": live, "users": len(found), "candidates": config.retrieval.candidates, "k": k}
    write_report("first_look", rows, about, options.json)


if __name__ == "__main__":
    main()
