"""Training throughput of two-tower and SASRec under Ray Train and in a plain torch loop.

One worker, one thread, the same events and the same steps. Start-up of the cluster and its workers is reported apart:
the time of a run of one epoch is subtracted from that of a longer run. Target: at least 0.9 times the plain loop. One
row is a textbook SASRec: every sequence padded to T, all logits.

    python -m benchmarks training_throughput --users 5000 --items 5000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional as F

from benchmarks.report import write_report
from benchmarks.training.drawn_events import draw_events
from handsell.config import Config, load_config
from handsell.data.interactions import Interactions
from handsell.jobs.cluster import prepare_private_cluster
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval.config import retrievers
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.neural import sasrec_training, two_tower_training
from handsell.retrieval.neural.training import use_reduced_precision

TARGET = 0.9


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="handsell-bench-") as name:
        folder = Path(name)
        events = _draw_events(options, folder)
        config = _write_config(folder)
        plain = {
            "two_tower": _run_plain_two_tower(events, config, options.epochs),
            "sasrec": _run_plain_sasrec(events, config, options),
        }
        textbook = _run_textbook_sasrec(events, config)
        rows = _run_under_ray(events, config, folder, options.epochs, plain)
    rows.append(_row("sasrec, textbook", textbook, 0.0, plain["sasrec"]))
    met = all(row["of the plain loop"] >= TARGET for row in rows[:2])
    about = {"users": options.users, "items": options.items, "epochs": options.epochs, "target": TARGET, "met": met}
    write_report("training_throughput", rows, about, options.json)
    sys.exit(0 if met else 1)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training_throughput", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs, after one that is not")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def _draw_events(options: argparse.Namespace, folder: Path) -> Interactions:
    """Draw events, and write them as two Parquet parts to folder/fit."""
    events = draw_events(options.users, options.items)
    (folder / "fit").mkdir()
    for part in range(2):
        rows = events.where(events.user % 2 == part)
        columns = {name: getattr(rows, name) for name in ("user", "item", "type", "time", "weight")}
        pq.write_table(pa.table(columns), folder / "fit" / f"part-{part}.parquet")
    Content(np.zeros((options.items, 1), np.float32)).save(folder / "content")
    return events


def _write_config(folder: Path) -> Config:
    path = folder / "throughput.toml"
    path.write_text('name = "throughput"\n[data]\nformat = "world"\n[retrieval.sasrec]\nvalidation_users = 0\n')
    return load_config(path)


def _with_epochs(config: Config, name: str, epochs: int) -> Config:
    section = config.retrieval[name].model_copy(update={"epochs": epochs})
    return config.model_copy(update={"retrieval": config.retrieval.with_sections({name: section})})


def _run_plain_two_tower(events: Interactions, config: Config, epochs: int) -> float:
    """Examples/s."""
    section = config.retrieval["two_tower"]
    rows = two_tower_training.TwoTowerRows(events, section)
    model = two_tower_training.build_towers(events.n_items, None, section)
    optimizer = torch.optim.Adam(model.parameters(), lr=section.learning_rate, weight_decay=section.reg)
    steps = two_tower_training.count_steps(rows, section)
    for epoch in range(1 + epochs):
        _run_epoch(model, optimizer, rows.iterate_batches(steps, np.random.default_rng(epoch)))
        if epoch == 0:  # not measured, as under Ray
            begun = time.perf_counter()
    return epochs * rows.per_epoch / (time.perf_counter() - begun)


def _run_plain_sasrec(events: Interactions, config: Config, options: argparse.Namespace) -> float:
    section = config.retrieval["sasrec"]
    rows = sasrec_training.SequenceRows(events, section)
    model = sasrec_training.build_transformer(events.n_items, None, section)
    optimizer = torch.optim.AdamW(model.parameters(), lr=section.learning_rate, fused=True)
    with use_reduced_precision():
        for epoch in range(1 + options.epochs):
            _run_epoch(model, optimizer, rows.iterate_batches(rows.steps, rows.trained, np.random.default_rng(epoch)))
            if epoch == 0:
                begun = time.perf_counter()
    return options.epochs * rows.per_epoch / (time.perf_counter() - begun)


def _run_epoch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> None:
    for batch in batches:
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()


def _run_textbook_sasrec(events: Interactions, config: Config, batches: int = 20) -> float:
    """Return examples/s of a torch model of the same size, with padding to T and cross-entropy over all logits."""
    section = config.retrieval["sasrec"]
    size, length = section.embedding_size, section.length
    embedding = torch.nn.Embedding(events.n_items + 1, size, padding_idx=events.n_items)
    block = torch.nn.TransformerEncoderLayer(size, 1, 4 * size, section.dropout, batch_first=True, norm_first=True)
    body = torch.nn.TransformerEncoder(block, section.layers, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW([*embedding.parameters(), *body.parameters()], lr=section.learning_rate)
    causal_mask = torch.nn.Transformer.generate_square_subsequent_mask(length)
    sequences = [
        events.item[a:b][-length - 1 :] for a, b in zip(events.user_offsets, events.user_offsets[1:], strict=False)
    ]
    padded = np.full((len(sequences), length + 1), events.n_items)
    for n, sequence in enumerate(sequences):
        padded[n, : len(sequence)] = sequence
    done, begun = 0, time.perf_counter()
    for n in range(batches):
        rows = torch.from_numpy(padded[n * 32 : n * 32 + 32])
        x = body(embedding(rows[:, :-1]), mask=causal_mask, is_causal=True)
        logits = x @ embedding.weight.T
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=events.n_items).backward()
        optimizer.step()
        done += int((rows[:, 1:] != events.n_items).sum())
    return done / (time.perf_counter() - begun)


def _run_under_ray(
    events: Interactions, config: Config, folder: Path, epochs: int, plain: dict[str, float]
) -> list[dict[str, Any]]:
    import ray

    counted = {
        "two_tower": two_tower_training.TwoTowerRows(events, config.retrieval["two_tower"]).per_epoch,
        "sasrec": sasrec_training.SequenceRows(events, config.retrieval["sasrec"]).per_epoch,
    }
    prepare_private_cluster()
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )  # fmt: skip
    rows, sizes = [], CatalogSizes(events.n_users, events.n_items)
    try:
        for name in counted:
            fit = resolve_name(retrievers()[name].job)
            once, longer = (
                fit(_with_epochs(config, name, n), folder / "fit", folder / "content", sizes, folder / f"{name}-{n}")
                for n in (1, 1 + epochs)
            )
            one = (longer - once) / epochs
            rows.append(_row(name, counted[name] / one, max(once - one, 0.0), plain[name]))
    finally:
        ray.shutdown()
    return rows


def _row(name: str, rate: float, start_s: float, plain: float) -> dict[str, Any]:
    return {
        "model": name,
        "examples/s": round(rate),
        "plain loop": round(plain),
        "of the plain loop": round(rate / plain, 3),
        "start s": round(start_s, 1),
    }


if __name__ == "__main__":
    main()
