"""Build time, size, recall and search latency of the vector index for a catalog of N items.

Items are generated in blocks and written to a file, so that they are never all in memory as float32. They are points
in a space of --latent dimensions (clusters of Zipf sizes, normal around normal centers), mapped to --dim dimensions by
a random matrix, with normal noise in each dimension, and normalized to unit length. A query is a user: items of one to
three clusters, drawn by cluster size, averaged with Dirichlet weights and normalized. The users that tune the index are
not those that measure it. Recall is against exact search over the float32 vectors.

    python -m benchmarks ann --items 1000000                 about two minutes
    python -m benchmarks ann --items 50000000 --threads 2    above 10 M items the file is float16
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.retrieval.ann_steps import ClusteredItems, build, generate, run_in_subprocess, search


def main() -> None:
    options = _parse_options()
    folder = Path(tempfile.mkdtemp(prefix="ann-", dir=options.folder))
    try:
        rows, about = measure(options, folder)
    finally:
        shutil.rmtree(folder)
    write_report("ann", rows, about, options.json)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ann", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=1000, help="items per search, and of recall@k")
    parser.add_argument("--latent", type=int, default=20, help="dimensions of the space without noise")
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--recall", type=float, default=0.95, help="target of the index: retrieval.index_recall")
    parser.add_argument("--flat-below", type=int, default=None, help="overrides retrieval.flat_below")
    parser.add_argument("--pq-above", type=int, default=None, help="overrides retrieval.pq_above")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.9, 0.1], help="shares of eligible items")
    parser.add_argument("--threads", type=int, default=1, help="of the build; a search uses one")
    parser.add_argument("--folder", type=Path, default=None, help="for the files of the run, which are deleted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    options.k = min(options.k, options.items)
    return options


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per share of eligible items, and the description of the index."""
    source = ClusteredItems(options.items, options.dim, options.latent, options.clusters, seed=options.seed)
    generated, truth = run_in_subprocess(generate, source, options, folder / "source.npy")
    built, _ = run_in_subprocess(build, source, options, folder)
    (folder / "source.npy").unlink()
    searched, (rows, mapped) = run_in_subprocess(search, source, options, folder / "index", truth)
    sizes = {path.name: path.stat().st_size / options.items for path in (folder / "index").iterdir()}
    index = json.loads((folder / "index" / "index.json").read_text())
    about = {
        **{name: getattr(source, name) for name in ("items", "dim", "latent", "clusters", "spread", "noise")},
        "effective_dimensions": round(source.effective_dimensions(), 1),
        "k": options.k,
        "queries": options.queries,
        "index": index,
        "build_s": built["seconds"],
        "build_cpu_s": built["cpu_s"],
        "build_threads": options.threads,
        "build_peak_mib": built["peak_mib"],
        "generated_s": generated["seconds"],
        "bytes_per_item_lists": round(sizes.get("ivf.faiss", 0.0) + sizes.get("lists.bin", 0.0), 1),
        "bytes_per_item_vectors": round(sizes["vectors.npy"], 1),
        "search_peak_mib": searched["peak_mib"],
        "search_mapped_mib": mapped,
    }
    return rows, about


if __name__ == "__main__":
    main()
