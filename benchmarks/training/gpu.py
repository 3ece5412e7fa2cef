"""Training of two-tower and SASRec on a GPU and on all CPUs of the same machine: examples per second, and NDCG@10.

Each model is trained on public sequences for the same number of epochs on both, as many as the CPUs finish in
`--seconds`, and answers the same test requests: the relative difference of NDCG@10 is shown with its 95 % interval. Two
files take at most ten minutes. Without a GPU, it says so and measures nothing.

    python -m benchmarks gpu --data ml-1m-sequences/ml-1m_seq.txt amazon-beauty/Beauty.txt
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.protocols.datasets import LabeledRequests, ProtocolData, read_sequences
from benchmarks.protocols.protocol import split_batches
from benchmarks.report import write_report
from handsell.core.batches import NONE, Ragged
from handsell.data.interactions import Interactions
from handsell.evaluation.intervals import compare
from handsell.evaluation.metrics import Relevant, gains, ndcg
from handsell.retrieval.models.sasrec import SASRecConfig, build_sasrec
from handsell.retrieval.models.two_tower import TwoTowerConfig, build_two_tower
from handsell.retrieval.neural import sasrec_training, two_tower_training
from handsell.retrieval.neural.training import read_weights, use_reduced_precision

K = 10
REQUESTS = 3_000  # test requests of each file, drawn by a fixed seed


@dataclass(frozen=True)
class TrainedModel:
    """A model, and how fast it was trained."""

    model: Any  # a Retriever
    examples: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.examples / self.seconds


def main() -> None:
    options = _parse_options()
    if not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device here, so nothing was measured. Run this on a machine with a GPU.")
        sys.exit(1)
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for path in options.data:
        data = read_sequences(path)
        rows += [
            {"data": path.stem, "model": name, **compare_devices(train, data, options.seconds, options.epochs)}
            for name, train in MODELS.items()
        ]
    write_report("gpu", rows, {"gpu": torch.cuda.get_device_name(), "threads": torch.get_num_threads()}, options.json)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files with a user's items in each line")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training on the CPUs, for each model and file")
    parser.add_argument("--epochs", type=int, default=20, help="largest number of epochs")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def compare_devices(
    train: Any, data: ProtocolData, seconds: float, most: int, devices: tuple[str, str] = ("cpu", "cuda")
) -> dict[str, Any]:
    """Train on both devices, for as many epochs as the first one finishes in `seconds`, and compare the answers."""
    events = data.final.events
    once, _ = (train(events, 1, device) for device in devices)  # the second one starts the GPU
    epochs = max(1, min(most, int(seconds / once.seconds)))
    on_cpu, on_gpu = (train(events, epochs, device) for device in devices)
    cpu, gpu = (score_model(trained.model, data) for trained in (on_cpu, on_gpu))
    change = compare(gpu, cpu, np.arange(len(gpu)))
    return {
        "epochs": epochs,
        "CPU, examples/s": round(on_cpu.rate),
        "GPU, examples/s": round(on_gpu.rate),
        "times": round(on_gpu.rate / on_cpu.rate, 1),
        "NDCG@10, CPU": round(change.baseline, 4),
        "NDCG@10, GPU": round(change.challenger, 4),
        "GPU to CPU": f"{change.relative:+.1%} ({change.relative_low:+.1%} to {change.relative_high:+.1%})",
    }


def train_two_tower(events: Interactions, epochs: int, device: str) -> TrainedModel:
    config = TwoTowerConfig(epochs=epochs)
    rows = two_tower_training.TwoTowerRows(events, config)
    model = two_tower_training.build_towers(events.n_items, None, config)
    begun = time.perf_counter()
    two_tower_training.train(model, rows, config, device=device)
    weights = read_weights(model)  # waits for the device
    seconds = time.perf_counter() - begun
    return TrainedModel(build_two_tower(weights, None, rows.trained), epochs * rows.per_epoch, seconds)


def train_sasrec(events: Interactions, epochs: int, device: str) -> TrainedModel:
    config = SASRecConfig(epochs=epochs, validation_users=0)
    rows = sasrec_training.SequenceRows(events, config)
    model = sasrec_training.build_transformer(events.n_items, None, config)
    begun = time.perf_counter()
    with use_reduced_precision():
        sasrec_training.Training(model, rows, device=device).run(lambda epoch: None)
    weights = read_weights(model)
    seconds = time.perf_counter() - begun
    built = build_sasrec(weights, None, rows.trained, cosine=config.temperature > 0)
    return TrainedModel(built, epochs * rows.per_epoch, seconds)


MODELS = {"two_tower": train_two_tower, "sasrec": train_sasrec}


def score_model(model: Any, data: ProtocolData) -> np.ndarray:
    """Return NDCG@10 of each test request."""
    labeled = _draw_requests(data.final.requests)
    found = np.full((len(labeled), K), NONE, np.int32)
    for rows, requests, eligible in split_batches(labeled, data.n_items, data.masks_history):
        found[rows], _ = model.retrieve(requests, K, eligible)
    target = labeled.target
    relevant = Relevant(target, Ragged(np.ones(len(target.values), np.float32), target.offsets))
    return ndcg(gains(found, relevant), relevant, K)


def _draw_requests(labeled: LabeledRequests) -> LabeledRequests:
    return labeled.take(np.sort(np.random.default_rng(0).permutation(len(labeled))[:REQUESTS]))


if __name__ == "__main__":
    main()
