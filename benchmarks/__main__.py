"""`python -m benchmarks` runs the short ones that need nothing else; `python -m benchmarks NAME …` runs one.

Options after NAME are that benchmark's own: `python -m benchmarks NAME --help`.
"""

from __future__ import annotations

import runpy
import sys

BENCHMARKS = {
    "ablation": "the funnel on a deployment's test window, without each source and each group of features",
    "protocols": "retrievers on public data sets by their fixed protocols, tuned, beside published figures",
    "ann": "the vector index of a catalog of N items: build, bytes per item, recall against exact search, latency",
    "driver_memory": "peak memory of a job's driver and of its cluster (20 M events unless told otherwise)",
    "reranking": "50 → 30 with the shipped dials and with all of them, ms per request at batches of 1, 8 and 16",
    "retrieval_latency": "encode + retrieve of each retriever, one thread, and what a new user with three events gets",
    "filters": "a filter expression over 1 M items: new, once its mask is kept, and in the mask of a request",
    "tradeoff": "relevance against each list metric for plain top-n, MMR, DPP, calibration and more, on validation",
    "rules": "50 candidates to a slate of 30, with five business rules and without",
    "training_throughput": "examples/s of the neural retrievers under Ray Train, beside a bare loop of torch",
    "first_look": "what changes where few trees cut the candidates before the whole ranker, and what that saves",
    "serving": "what each layout of the graph costs beyond its compute, under wrk, with the floor in the same run",
    "hops": "where the time of a call from the gateway to each stage goes, point by point, one request at a time",
    "token_cost": "a call between deployments with Ray's token and without, in turns",
    "autoscaling": "replicas of each stage over time under a load step, up and down, with graph.yaml's settings",
    "faults": "what callers see of each fault: the graph under constant load, one thing broken at a time",
    "memory": "what each warm replica of a stage holds of the bundle for itself, and what replicas share",
    "served_quality": "own tables → handsell up → HTTP → NDCG@10 on held-out likes, beside baselines",
    "serving_smoke": "latency and rate of a running `make up` at 1, 8 and 32 callers, and the funnel's own floor",
}
SHORT = {
    "ann": ("--items", "60000"),
    "driver_memory": ("--events", "500000", "--steps", "data", "features"),
    "filters": ("--items", "100000"),
}


def run(name: str, *options: str) -> int:
    """Run one as if it were the program; its exit status."""
    sys.argv = [f"python -m benchmarks {name}", *options]
    try:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def listing() -> str:
    return "\n".join(f"  {name:20} {about}" for name, about in BENCHMARKS.items())


def main() -> int:
    if len(sys.argv) > 1:
        name, *options = sys.argv[1:]
        if name in BENCHMARKS:
            return run(name, *options)
        print(f"{__doc__}\n{listing()}")
        return 0 if name in ("-h", "--help") else 2
    print(listing(), flush=True)
    status = 0
    for name, options in SHORT.items():
        print(f"\n== {name} {' '.join(options)}", flush=True)
        status = max(status, run(name, *options))
    print("\nserving_smoke was not run, because it needs a service: make up && python -m benchmarks serving_smoke")
    return status


if __name__ == "__main__":
    sys.exit(main())
