"""Processor time that experiments add to a request: assignment in the gateway, and of many units at once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import write_report
from handsell.config import Config
from handsell.experiments.assignment import assign_arm, assign_experiment, hash_units
from handsell.experiments.traffic import RequestUnits, Traffic

NOW = 1_800_000_000_000_000
CHANGES = ({"reranking": {"diversity": 0.3}}, {"weights": {"als": 2.0}}, {"surface": {"count": 20}}, {"rules": "none"})


def build_config(experiments: int) -> Config:
    """A config with experiments of two arms, one in each layer."""
    found = {
        f"experiment_{n}": {
            "layer": f"layer_{n}",
            "arms": {"control": {"share": 0.5}, "bold": {"share": 0.5, **change}},
        }
        for n, change in enumerate(CHANGES[:experiments])
    }
    return Config.model_validate({"name": "benchmark", "experiments": found})


def time_requests(traffic: Traffic, units: Sequence[RequestUnits]) -> float:
    """Return µs per request."""
    started = time.process_time()
    for unit in units:
        traffic.assign(unit, "home", NOW)
    return (time.process_time() - started) / len(units) * 1e6


def time_batch(units: int) -> float:
    """Return ns per unit."""
    config, hashes = build_config(1), hash_units([f"user {n}" for n in range(units)])
    started = time.process_time()
    assign_experiment("layer_0", config.experiments, hashes, NOW)
    assign_arm("experiment_0", config.experiments["experiment_0"], hashes, NOW)
    return (time.process_time() - started) / units * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks assignment", description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    units = [RequestUnits(f"user {n}") for n in range(options.units)]
    rows = []
    for experiments in (0, 1, 2, 4):
        traffic = Traffic(build_config(experiments))
        first, later = time_requests(traffic, units), time_requests(traffic, units)
        rows.append({"experiments": experiments, "first request, µs": round(first, 2), "later, µs": round(later, 2)})
    about = {"units": options.units, "batch, ns per unit": round(time_batch(options.units))}
    write_report("assignment", rows, about, options.json)
