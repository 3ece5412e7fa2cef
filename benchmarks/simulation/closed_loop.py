"""Thirty simulated days with training: true satisfaction of the funnel beside popularity and the best single retriever.

The same population meets each policy (see docs/experiments.md): popularity, the retriever of the highest NDCG@10, the
funnel, and the funnel with exploration, each with its own event store and its own trainings. Policies that have
finished are kept in `--state`, so that a run that was stopped goes on with the next one. With
`--policies oracle,random` bounds are added to the table.

    python -m benchmarks closed_loop                          # the whole table
    python -m benchmarks closed_loop --policies funnel        # one part of it
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from handsell.config import load_config
from handsell.local.simulation import SimulationOptions, simulate_policies

WORLD = Path(__file__).parents[2] / "deployments" / "configs" / "world.toml"
SHOWN = (
    "satisfaction", "value", "clicks", "conversion", "active_at_end", "diversity", "entropy_first_week",
    "entropy_last_week", "new_share", "new_reaching_ten", "days_to_tenth",
)  # fmt: skip
POLICIES = "popularity,retriever,funnel,exploration"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks closed_loop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--days", type=int, default=30, help="simulated days")
    parser.add_argument("--users", type=int, default=800, help="listeners who meet the policies")
    parser.add_argument("--items", type=int, default=2_000, help="tracks of the world")
    parser.add_argument("--log-days", type=int, default=30, help="days of the world's log before")
    parser.add_argument("--every", type=int, default=10, help="days between trainings")
    parser.add_argument("--seed", type=int, default=1, help="seed of the listeners' random numbers")
    parser.add_argument("--policies", default=POLICIES, help="separated by commas")
    parser.add_argument("--requests", type=int, default=500, help="split.max_requests of the trainings")
    parser.add_argument(
        "--state", type=Path, default=Path(tempfile.gettempdir()) / "handsell-closed-loop", help="folder of the parts"
    )
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    os.environ["HANDSELL_HOME"] = str(options.state / "home")
    config = load_config(write_config(options))
    size = SimulationOptions(options.days, options.users, options.seed, options.every)
    report = simulate_policies(config, size, options.policies.split(","))
    about = {"days": options.days, "listeners": options.users, "every": options.every, "seed": options.seed}
    compared = {"comparisons": build_comparisons(report), "trainings": build_trainings(report)}
    write_report("closed_loop", build_rows(report), about, options.json, compared)


def write_config(options: argparse.Namespace) -> Path:
    """Write the world's config with fewer listeners and tracks, and without the two-tower model, the slowest."""
    size = (
        f"users = {options.users}\nitems = {options.items}\nartists = {options.items // 10}\ndays = {options.log_days}"
    )
    text = WORLD.read_text().replace('format = "world"', f'format = "world"\n[data.world]\n{size}')
    text += f"\n[split]\nmax_requests = {options.requests}\n[retrieval.two_tower]\nenabled = false\n"
    options.state.mkdir(parents=True, exist_ok=True)
    path = options.state / "world.toml"
    path.write_text(text)
    return path


def build_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"policy": name, **{total: policy["totals"][total] for total in SHOWN}}
        for name, policy in report["policies"].items()
    ]


def build_comparisons(report: dict[str, Any]) -> list[dict[str, Any]]:
    keys = ("policy", "other", "figure", "difference", "low", "high", "outcome")
    return [{key: row[key] for key in keys} for row in report["comparisons"]]


def build_trainings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return how many bundles each policy trained, and how many of them passed the gate."""
    return [
        {"policy": name, "trained": len(notes), "passed the gate": sum("is live" in note for note in notes)}
        for name, notes in report["trainings"].items()
    ]


if __name__ == "__main__":
    main()
