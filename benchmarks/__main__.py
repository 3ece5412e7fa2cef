"""Run a benchmark: `python -m benchmarks NAME [OPTION …]`. Without a name, run the short ones that need no service.

`python -m benchmarks NAME --help` prints the options of one benchmark. SIGTERM ends a benchmark as an error does:
servers, clusters, mounts and temporary folders that it made are removed.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import NoReturn

# name → (module, one sentence)
BENCHMARKS = {
    "serving": ("serving.layout_comparison", "Latency, throughput and CPU of each serving layout under wrk."),
    "serving_smoke": ("serving.smoke", "Latency and throughput of a running service at 1, 8 and 32 clients."),
    "hops": ("serving.hops", "Time of each part of a call from the gateway to a stage."),
    "request_layers": ("serving.request_layers", "Processor time of each layer of a request, beside another version."),
    "answer_cost": (
        "serving.answer_cost",
        "Answers over HTTP beside an empty application and another version.",
    ),
    "stage_calls": ("serving.stage_calls", "Time of a call to a stage through Serve and over a socket, in turns."),
    "token_cost": ("serving.token_cost", "Latency of a call between deployments with and without Ray's token."),
    "start": ("serving.start", "Time until a new pod serves: Ray's commands, imports, loading, a new node."),
    "up": ("serving.up_run", "Seconds and processor seconds of each step of `handsell up`, beside another version."),
    "reuse": ("serving.reuse", "Processor time of reused answers beside computed ones, and how often they occur."),
    "memory": ("serving.replica_memory", "Shared and private memory of each replica."),
    "access": ("access.request_cost", "Processor time that keys add to a request."),
    "tracing": ("access.tracing_cost", "Processor time that spans add to a request, switched on and off."),
    "console": ("console.console_run", "Size and first paint of each page; latency of requests beside open consoles."),
    "autoscaling": ("serving.autoscaling", "Replicas of each deployment before, during and after a load step."),
    "capacity": ("capacity.calibration_run", "Costs, latency and sizes for `handsell plan`; checks a plan."),
    "events": ("events.event_run", "Acknowledged events per second, and time until they change a slate."),
    "durability": ("durability.durability_run", "Acknowledged events that are lost or count twice after kill -9."),
    "soak": ("soak.soak_run", "Disk, memory and latency over cycles of traffic and training, with retention."),
    "store_soak": ("soak.store_run", "Disk, memory and append latency of the event store over cycles of trimming."),
    "faults": ("faults.fault_run", "Responses under constant load while one part of the graph fails."),
    "ann": ("retrieval.ann", "Build time, size, recall and latency of the vector index for N items."),
    "shards": ("retrieval.shards", "Answers, memory and latency of a sharded vector index beside one index."),
    "retrieval_latency": ("retrieval.latency", "Latency of each retriever, and its results for new users."),
    "filters": ("stages.filters", "Latency of filter expressions, cached and uncached."),
    "rules": ("stages.rules", "Latency of re-ranking with and without business rules."),
    "reranking": ("stages.reranking", "Latency of re-ranking with default and with all preferences."),
    "limit": ("limit.limit_run", "CPU time of the three stages beside what no implementation avoids."),
    "loop": ("quality.loop", "NDCG of a bundle trained with more days of traffic beside one without."),
    "closed_loop": ("simulation.closed_loop", "True satisfaction of policies over simulated days with training."),
    "impressions": ("quality.impressions", "NDCG of the ranker for each way of learning from shown items."),
    "ids": ("stages.ids", "Memory and lookup time of ids beside fixed-width strings and a dictionary."),
    "first_look": ("stages.first_look", "Results and CPU time of ranking with a first pass of few trees."),
    "training_throughput": ("training.throughput", "Examples per second under Ray Train and in a plain torch loop."),
    "als_sweeps": ("training.als_sweeps", "Pairs per second of a sweep of ALS beside `implicit`."),
    "als_solvers": ("training.als_solvers", "NDCG of ALS on a validation part by solver, sweeps and seconds."),
    "gpu": ("training.gpu", "Examples per second and NDCG of neural models on a GPU and on the CPUs."),
    "ingest": ("training.incremental_data", "Time and memory of the data step for new events, by size of the history."),
    "driver_memory": ("training.driver_memory", "Peak memory of the driver and the workers of each job."),
    "scale": ("scale.scale_run", "Results, time and memory of data, features and training by nodes and events."),
    "ablation": ("quality.ablation", "NDCG of the funnel without each source and each feature group."),
    "weak_places": ("quality.weak_places", "Places of slates with a low score or unlike the history, by floor."),
    "cold_start": ("quality.cold_start", "New items in the first ten, and lists of users with few events."),
    "rankers": ("quality.rankers", "NDCG@10 and CPU time of trees, transformer and blend on the same requests."),
    "repeat_buying": ("quality.repeat_buying", "The next basket beside each user's own most frequent items."),
    "shown_lists": ("quality.shown_lists", "Rank the lists that were shown, beside position and price order."),
    "assignment": ("experiments.assignment_run", "Time to assign a request, and many units, to arms."),
    "experiments": ("experiments.experiment_run", "Verdicts on simulated experiments whose truth is known."),
    "simulated_experiment": ("experiments.simulated_run", "One experiment on simulated users, from plan to verdict."),
    "experiment_log": ("experiments.log_run", "Time and memory of the analysis of a large log of an experiment."),
    "served_quality": ("quality.served_quality", "NDCG of a service over HTTP beside simple baselines."),
    "tradeoff": ("quality.tradeoff", "Relevance against list metrics for each way of re-ranking."),
    "exploration": ("exploration.long_run", "Satisfaction and new items' exposure with and without exploration."),
    "onboarding": ("exploration.onboarding", "Satisfaction of new users with and without answered questions."),
    "guard_rails": (
        "experiments.guard_rails",
        "How often guard rails stop a healthy arm, and how long a broken one answers.",
    ),
    "ope_logs": ("off_policy.public_logs", "Off-policy estimates on public logs beside other logs."),
    "ope_world": ("off_policy.world_coverage", "Error and coverage of off-policy estimates in a world."),
    "ope_service": ("off_policy.service_run", "Off-policy estimates from a service's log beside the world's truth."),
    "protocols": ("protocols.__main__", "Tuned retrievers on public data sets beside published figures."),
    "line_order": ("protocols.order_variants", "Whether the order of lines without times is recognized as one."),
}
TERMINATED = 128 + signal.SIGTERM  # exit status
SHORT = {
    "ann": ("--items", "60000"),
    "driver_memory": ("--events", "500000", "--steps", "data", "features"),
    "filters": ("--items", "100000"),
    "ids": ("--ids", "100000"),
}


def run(name: str, *options: str) -> int:
    """Run one benchmark with its command-line options and return its exit status."""
    sys.argv = [f"python -m benchmarks {name}", *options]
    module, _ = BENCHMARKS[name]
    try:
        importlib.import_module(f"benchmarks.{module}").main()
    except SystemExit as end:
        if end.code == TERMINATED:
            raise
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0


def end_on_sigterm() -> None:
    """Make SIGTERM raise SystemExit in the main thread, once: a second one does not interrupt the cleanup."""

    def end(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, lambda *_: None)
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)


def list_benchmarks() -> str:
    return "\n".join(f"  {name:20} {sentence}" for name, (_, sentence) in BENCHMARKS.items())


def main() -> int:
    if len(sys.argv) > 1:
        name, *options = sys.argv[1:]
        if name in BENCHMARKS:
            return run(name, *options)
        print(f"{__doc__}\n{list_benchmarks()}")
        return 0 if name in ("-h", "--help") else 2
    print(list_benchmarks(), flush=True)
    status = 0
    for short, arguments in SHORT.items():
        print(f"\n== {short} {' '.join(arguments)}", flush=True)
        status = max(status, run(short, *arguments))
    print("\nserving_smoke needs a running service: make up && python -m benchmarks serving_smoke")
    return status


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
