"""Bundles of the small deployment with training reports, as the console shows them."""

from __future__ import annotations

import json
import shutil
from typing import Any

from handsell.bundles.opening import open_bundles
from serving_world import World

PAGE = (
    "<!doctype html><html lang='en'><title>report</title><style>h1{color:teal}</style><h1>The whole report</h1></html>"
)


def make_report(ndcg: float = 0.3, diversity: float = 0.6, test_day: str = "2026-06-29") -> dict[str, Any]:
    """A report of lists with this accuracy, 0.02 sure, and diversity."""
    low, high = ndcg - 0.02, ndcg + 0.02
    metrics = {
        "ndcg@10": ndcg, "recall@10": 0.2, "hit_rate@10": 0.5, "diversity@10": diversity, "coverage@10": 0.4,
        "gini@10": 0.8, "novelty@10": 9.5, "drift@10": -0.04, "small_creators@10": 0.07, "calibration_error@10": 0.8,
        "exposure_large_creators@10": 0.75, "exposure_middle_creators@10": 0.18, "exposure_small_creators@10": 0.07,
    }  # fmt: skip
    served = {
        "funnel": {"kind": "funnel", "ndcg": ndcg, "low": low, "high": high, "recall": 0.3},
        "als": {"kind": "retriever", "ndcg": 0.25, "low": 0.23, "high": 0.27, "recall": 0.2},
        "baseline: popularity": {"kind": "baseline", "ndcg": 0.05, "low": 0.04, "high": 0.06, "recall": 0.1},
    }
    return {
        "version": 1, "config": "shop", "windows": {"test": {"from": test_day, "until": "2026-06-30"}},
        "summary": "The funnel beats popularity.", "reasons": ["Ranking improves on the blend of the sources."],
        "served": {
            "sentence": f"The slates reach NDCG@10 {ndcg:.4f}.", "models": served,
            "to_best_baseline": {"outcome": "beats"},
        },
        "models": {"funnel": {"kind": "funnel", "metrics": metrics, "interval": [low, high]}},
        "segments": {
            "new users": {"requests": 43, "models": {"funnel": {"mean": 0.07, "low": 0.02, "high": 0.12}}, "lists": {}},
            "warm users": {"requests": 0, "models": {}, "lists": {}},
        },
    }  # fmt: skip


def publish_report(world: World, report: dict[str, Any], seconds: int = 1, page: str = PAGE) -> str:
    """Publish a copy of the live bundle with a report, so many seconds younger, without promotion; return its id."""
    store = open_bundles(world.config)
    folder, manifest = store.new_dir(), store.show(world.bundle)
    shutil.copytree(store.local_path(world.bundle), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report.html").write_text(page, encoding="utf-8")
    metrics = {k: v for k, v in report["models"]["funnel"]["metrics"].items() if v is not None}
    created = manifest.created_us + seconds * 1_000_000
    return store.publish(folder, manifest.model_copy(update={"created_us": created, "metrics": metrics, "id": ""}))
