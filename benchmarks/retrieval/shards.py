"""Shards of a vector index beside one index: the same answers, memory of each process, and latency.

    python -m benchmarks shards --items 10_000_000 --dim 64

Items are written in blocks, and every step runs in a process of its own. The shards run in one process each and get a
batch at the same time, through pipes; Ray Serve's calls are not included (`python -m benchmarks hops`). The exact
indexes are compared bit for bit; of the approximate ones, the scores of common items are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from benchmarks.retrieval.ann_steps import ClusteredItems, run_in_subprocess
from benchmarks.retrieval.shard_steps import (
    Process,
    build_one,
    build_shards,
    compare_exact,
    generate_shards,
    measure_latency,
)
from handsell.retrieval.index.index_fitting import compute_recall


def main() -> None:
    options = parse_options()
    with contextlib.ExitStack() as stack:
        folder = None if options.work is None else options.work.absolute()
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-shards-")))
        folder.mkdir(parents=True, exist_ok=True)
        built = build(options, folder)
        if options.build_only:
            return
        rows, about = measure(options, folder, built)
    write_report("shards", rows, about, options.json)
    if not (about["exact_is_equal"] and about["scores_of_common_items_equal"] and about["ranks_never_worse"]):
        sys.exit("the shards do not answer as one index")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks shards", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--k", type=int, default=400, help="items per search")
    parser.add_argument("--latent", type=int, default=20, help="dimensions of the space without noise")
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=128)
    parser.add_argument("--exact-queries", type=int, default=16, help="queries of the exact comparison, bit for bit")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="requests per call")
    parser.add_argument("--recall", type=float, default=0.95, help="target of the index: retrieval.index_recall")
    parser.add_argument("--flat-below", type=int, default=None, help="overrides retrieval.flat_below")
    parser.add_argument("--pq-above", type=int, default=None, help="overrides retrieval.pq_above")
    parser.add_argument("--threads", type=int, default=2, help="of the build; a search uses one")
    parser.add_argument("--work", type=Path, default=None, help="folder of the indexes, kept and used again")
    parser.add_argument("--build-only", action="store_true", help="build the indexes in --work, without searching")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def build(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build both indexes, unless the folder has them, and compare the exact ones; return what that took."""
    done = folder / "built.json"
    if done.exists():
        return json.loads(done.read_text())
    source = create_source(options)
    users = source.generate_queries(options.queries, 0)
    generated, truth = run_in_subprocess(generate_shards, source, options, folder)
    np.save(folder / "truth.npy", truth)
    exact, is_equal = run_in_subprocess(compare_exact, folder, options, users[: options.exact_queries])
    print(f"generated in {generated['seconds']} s; exact answers are equal: {is_equal}", flush=True)
    one, _ = run_in_subprocess(build_one, source, options, folder)
    (folder / "source.npy").unlink()
    print(f"one index in {one['seconds']} s", flush=True)
    shards, _ = run_in_subprocess(build_shards, source, options, folder)
    for part in folder.glob("part-*.npy"):
        part.unlink()
    built = {
        "exact_queries": options.exact_queries, "exact_is_equal": is_equal, "exact_s": exact["seconds"],
        "generated_s": generated["seconds"],
        "one_build_s": one["seconds"], "one_build_cpu_s": one["cpu_s"], "one_build_peak_mib": one["peak_mib"],
        "shards_build_s": shards["seconds"], "shards_build_cpu_s": shards["cpu_s"],
        "shards_build_peak_mib": shards["peak_mib"],
    }  # fmt: skip
    done.write_text(json.dumps(built))
    return built


def create_source(options: argparse.Namespace) -> ClusteredItems:
    return ClusteredItems(options.items, options.dim, options.latent, options.clusters, seed=options.seed)


def measure(
    options: argparse.Namespace, folder: Path, built: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per layout and batch size, and what both layouts have in common."""
    source, truth = create_source(options), np.load(folder / "truth.npy")
    users = source.generate_queries(options.queries, 0)
    layouts = {
        "one index": [folder / "one"],
        f"{options.shards} shards": [folder / "sharded" / f"shard-{shard}" for shard in range(options.shards)],
    }
    rows, answers = [], []
    for layout, paths in layouts.items():
        processes = [Process(path, options.k, len(paths)) for path in paths]
        try:
            for batch in options.batches:
                taken, found = measure_latency(processes, users, batch, options.k)
                rows.append({"layout": layout, "batch": batch, **taken, "recall": _recall(found[0], truth)})
            answers.append(found)
            for row in rows[-len(options.batches) :]:
                row |= _largest([process.read_memory() for process in processes])
        finally:
            for process in processes:
                process.stop()
    return rows, {
        **{name: getattr(source, name) for name in ("items", "dim", "latent", "clusters", "spread", "noise")},
        "shards": options.shards,
        "k": options.k,
        "queries": options.queries,
        **compare(*answers),
        **built,
    }


def compare(one: tuple[np.ndarray, np.ndarray], sharded: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Compare the items and scores (Q, k) of both layouts."""
    equal, common = True, []
    for q in range(len(one[0])):
        _, left, right = np.intersect1d(one[0][q], sharded[0][q], return_indices=True)
        equal &= bool(np.array_equal(one[1][q, left], sharded[1][q, right]))
        common.append(len(left) / one[0].shape[1])
    return {
        "common_items": round(float(np.mean(common)), 4),
        "scores_of_common_items_equal": equal,
        "ranks_never_worse": bool((sharded[1] >= one[1]).all()),
    }


def _recall(items: np.ndarray, truth: np.ndarray) -> float:
    return float(compute_recall(items, truth).mean())


def _largest(memory: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(one[name] for one in memory) for name in memory[0]}


if __name__ == "__main__":
    main()
