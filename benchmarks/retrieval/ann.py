"""How long does a search take in the index that a catalog of N items gets, what does it find, what does it weigh?

Items come in blocks from a generator and go to a file, so that they are never all in memory as float32. They are
points of a space of --latent dimensions (clusters of Zipf sizes, normal around normal centers), turned into --dim
dimensions by a random map, with normal noise in each, and made unit length. A query is a user: items of one to three
clusters, drawn as the clusters' sizes are, averaged with Dirichlet weights and made unit length. Users that tune the
index are others than those that measure it. Recall is against exact search over the float32 stream.

    python -m benchmarks ann --items 1000000                 about two minutes
    python -m benchmarks ann --items 50000000 --threads 2    above 10 M items the file is of float16
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import report
from benchmarks.retrieval.ann_steps import Clustered, alone, build, search, stream


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="ann-", dir=options.folder))
    try:
        rows, about = measure(options, folder)
    finally:
        shutil.rmtree(folder)
    report("ann", rows, about, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ann", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--k", type=int, default=1000, help="items asked for, and of the recall")
    parser.add_argument(
        "--latent", type=int, default=20, help="dimensions that the items really vary in, but for noise"
    )
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--recall", type=float, default=0.95, help="what the index is tuned to: retrieval.index_recall")
    parser.add_argument("--flat-below", type=int, default=None, help="instead of the default of retrieval.flat_below")
    parser.add_argument("--pq-above", type=int, default=None, help="likewise")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.9, 0.1], help="of items that are eligible")
    parser.add_argument("--threads", type=int, default=1, help="of the build; searches have one")
    parser.add_argument("--folder", type=Path, default=None, help="where the files of a run lie; they are deleted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    options = parser.parse_args()
    options.k = min(options.k, options.items)
    return options


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row per share of eligible items, and what is told of the index."""
    source = Clustered(options.items, options.dim, options.latent, options.clusters, seed=options.seed)
    made, truth = alone(stream, source, options, folder / "source.npy")
    built, _ = alone(build, source, options, folder)
    (folder / "source.npy").unlink()
    searched, (rows, mapped) = alone(search, source, options, folder / "index", truth)
    sizes = {path.name: path.stat().st_size / options.items for path in (folder / "index").iterdir()}
    index = json.loads((folder / "index" / "index.json").read_text())
    about = {
        **{name: getattr(source, name) for name in ("items", "dim", "latent", "clusters", "spread", "noise")},
        "directions": round(source.directions(), 1),
        "k": options.k,
        "queries": options.queries,
        "index": index,
        "build_s": built["seconds"],
        "build_cpu_s": built["cpu_s"],
        "build_threads": options.threads,
        "build_peak_mib": built["peak_mib"],
        "generated_s": made["seconds"],
        "bytes_per_item_lists": round(sizes.get("ivf.faiss", 0.0) + sizes.get("lists.bin", 0.0), 1),
        "bytes_per_item_vectors": round(sizes["vectors.npy"], 1),
        "search_peak_mib": searched["peak_mib"],
        "search_mapped_mib": mapped,
    }
    return rows, about


if __name__ == "__main__":
    main()
