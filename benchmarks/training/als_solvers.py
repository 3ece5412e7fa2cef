"""Recall@20 and NDCG@20 of ALS on a validation part by solver and sweep, with the seconds that the sweeps took.

The validation part is that of `python -m benchmarks protocols --format adjacency`; the test part is not used. The rows
of a solver have its factors after 1, 2, 4 … sweeps from the same start; the intervals are 95 %, paired, of the
difference in NDCG@20 to the exact solver after as many sweeps.

    python -m benchmarks als_solvers --train FILE --test FILE [--validation FILE] [--set alpha=100 reg=0.003 …]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.protocols.datasets import LabeledRequests, ProtocolData, read_adjacency
from benchmarks.protocols.protocol import split_batches
from benchmarks.report import write_report
from handsell.core.batches import NONE, Ragged
from handsell.core.errors import HandsellError
from handsell.evaluation.intervals import compare
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.retrieval.models.als import ALSConfig, build_als, iterate_sweeps

K = 20
EXACT = 0


def main() -> None:
    options = _parse_options()
    try:
        data = read_adjacency(options.train, options.test, options.validation)
        config = ALSConfig.model_validate(dict(_parse_setting(text) for text in options.set))
    except (HandsellError, ValueError) as error:
        sys.exit(f"error: {error}")
    with threadpool_limits(1):
        rows = measure(data, config, [EXACT, *options.steps], options)
    about = {"train": options.train.parent.name, **config.model_dump(exclude={"cg_steps", "epochs"})}
    write_report("als_solvers", rows, about, options.json)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks als_solvers", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--train", type=Path, required=True, help="lines of `user item item …`")
    parser.add_argument("--test", type=Path, required=True, help="only its users and items are read")
    parser.add_argument("--validation", type=Path, default=None, help="JSON of user → items; default: a tenth of train")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="settings of [retrieval.als]")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 3, 5], help="of conjugate gradients")
    parser.add_argument("--sweeps", type=int, default=8)
    parser.add_argument("--requests", type=int, default=6_000, help="validation requests, drawn")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def _parse_setting(text: str) -> tuple[str, Any]:
    field, _, value = text.partition("=")
    return field, json.loads(value)


def measure(
    data: ProtocolData, config: ALSConfig, steps: list[int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row for each solver and number of sweeps that is a power of two."""
    requests = data.tune.requests
    if len(requests) > options.requests:
        chosen = np.random.default_rng(0).choice(len(requests), options.requests, replace=False)
        requests = requests.take(np.sort(chosen))
    rows: list[dict[str, Any]] = []
    exact: dict[int, np.ndarray] = {}
    for count in steps:
        own = config.model_copy(update={"cg_steps": count, "epochs": options.sweeps})
        begun, seconds = time.process_time(), 0.0
        for sweep, (items, by_user) in enumerate(iterate_sweeps(data.tune.events, own), start=1):
            seconds += time.process_time() - begun
            if sweep & (sweep - 1) == 0:
                found = score(data, requests, build_als(items, by_user, own))
                exact.setdefault(sweep, found[1])
                rows.append(_row(count, sweep, seconds, found, compare(found[1], exact[sweep], requests.user)))
                print(rows[-1], file=sys.stderr, flush=True)
            begun = time.process_time()
    return rows


def score(data: ProtocolData, requests: LabeledRequests, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and NDCG (B,) each."""
    found = np.full((len(requests), K), NONE, np.int32)
    for rows, batch, eligible in split_batches(requests, data.n_items, data.masks_history):
        found[rows], _ = model.retrieve(batch, K, eligible)
    target = requests.target
    relevant = Relevant(target, Ragged(np.ones(len(target.values), np.float32), target.offsets))
    gain = gains(found, relevant)
    return recall(gain, relevant, K), ndcg(gain, relevant, K)


def _row(count: int, sweep: int, seconds: float, found: tuple[np.ndarray, np.ndarray], beside: Any) -> dict[str, Any]:
    return {
        "solver": f"{count} steps" if count else "exact",
        "sweeps": sweep,
        "CPU s": round(seconds, 2),
        "recall@20": round(float(np.nanmean(found[0])), 4),
        "ndcg@20": round(float(np.nanmean(found[1])), 4),
        "to exact": f"{beside.difference:+.4f} ({beside.low:+.4f} to {beside.high:+.4f})",
        "verdict": beside.outcome,
    }


if __name__ == "__main__":
    main()
