"""Does the platform slow training down? Two towers and SASRec under Ray Train, beside a bare loop of torch; ALS beside
`implicit`, pairs/s of a sweep over users and items.

One worker, one thread, the same events and the same steps. What a cluster and its workers need to start is told
apart: a run of one epoch is taken off the time of a longer run. Target: at least 0.9 times the bare loop. One row is
SASRec as a textbook writes it: every line padded to T, all logits at once. `implicit` solves each row exactly
(Cholesky, as ours does) or by three steps of conjugate gradients (its default); no target stands on that.

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

from benchmarks.report import report
from handsell.config import Config, load_config
from handsell.core.units import HOUR_US
from handsell.data.interactions import Interactions
from handsell.jobs.cluster import prepare_private_cluster
from handsell.jobs.train.windows import Sizes
from handsell.retrieval.config import retrievers
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.neural import sasrec_training, two_tower_training
from handsell.retrieval.neural.training import coarse_products

TARGET = 0.9


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="handsell-bench-") as name:
        folder = Path(name)
        events = _events(options, folder)
        config = _config(folder)
        bare = {
            "two_tower": _bare_towers(events, config, options.epochs),
            "sasrec": _bare_sasrec(events, config, options),
        }
        textbook = _textbook(events, config)
        rows = _under_ray(events, config, folder, options.epochs, bare)
    rows.append(_row("sasrec, textbook", textbook, 0.0, bare["sasrec"]))
    rows += _als_rows(events, config, options.epochs)
    met = all(row["of the bare loop"] >= TARGET for row in rows[:2])
    about = {"users": options.users, "items": options.items, "epochs": options.epochs, "target": TARGET, "met": met}
    report("training_throughput", rows, about, options.json)
    sys.exit(0 if met else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks training_throughput", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3, help="measured ones, after one that is not")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


def _events(options: argparse.Namespace, folder: Path) -> Interactions:
    """Lines of 3 to 60 events on items of a long-tailed popularity; in two Parquet parts under folder/fit."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, options.users)
    user = np.repeat(np.arange(options.users, dtype=np.int32), lengths)
    item = np.minimum(rng.pareto(1.0, len(user)) * options.items / 50, options.items - 1).astype(np.int32)
    events = Interactions(
        user, item, np.zeros(len(user), np.int8), np.arange(1, len(user) + 1) * HOUR_US,
        np.ones(len(user), np.float32), options.users, options.items,
    )  # fmt: skip
    (folder / "fit").mkdir()
    for part in range(2):
        mine = events.where(events.user % 2 == part)
        columns = {name: getattr(mine, name) for name in ("user", "item", "type", "time", "weight")}
        pq.write_table(pa.table(columns), folder / "fit" / f"part-{part}.parquet")
    Content(np.zeros((options.items, 1), np.float32)).save(folder / "content")
    return events


def _config(folder: Path) -> Config:
    path = folder / "throughput.toml"
    path.write_text('name = "throughput"\n[data]\nformat = "world"\n[retrieval.sasrec]\nvalidation_users = 0\n')
    return load_config(path)


def _with_epochs(config: Config, name: str, epochs: int) -> Config:
    section = config.retrieval[name].model_copy(update={"epochs": epochs})
    return config.model_copy(update={"retrieval": config.retrieval.with_sections({name: section})})


def _bare_towers(events: Interactions, config: Config, epochs: int) -> float:
    """Examples/s."""
    section = config.retrieval["two_tower"]
    rows = two_tower_training.TwoTowerRows(events, section)
    model = two_tower_training.new_towers(events.n_items, None, section)
    optimizer = torch.optim.Adam(model.parameters(), lr=section.learning_rate, weight_decay=section.reg)
    steps = two_tower_training.steps_of(rows, section)
    for epoch in range(1 + epochs):
        _pass(model, optimizer, rows.batches(steps, np.random.default_rng(epoch)))
        if epoch == 0:  # not measured, as under Ray
            begun = time.perf_counter()
    return epochs * rows.per_epoch / (time.perf_counter() - begun)


def _bare_sasrec(events: Interactions, config: Config, options: argparse.Namespace) -> float:
    section = config.retrieval["sasrec"]
    rows = sasrec_training.SequenceRows(events, section)
    model = sasrec_training.new_transformer(events.n_items, None, section)
    optimizer = torch.optim.AdamW(model.parameters(), lr=section.learning_rate, fused=True)
    with coarse_products():
        for epoch in range(1 + options.epochs):
            _pass(model, optimizer, rows.batches(rows.steps, rows.trained, np.random.default_rng(epoch)))
            if epoch == 0:
                begun = time.perf_counter()
    return options.epochs * rows.per_epoch / (time.perf_counter() - begun)


def _pass(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> None:
    for batch in batches:
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()


def _textbook(events: Interactions, config: Config, batches: int = 20) -> float:
    """Examples/s of a plain torch model of the same size: lines padded to T, cross-entropy over all logits."""
    section = config.retrieval["sasrec"]
    size, length = section.embedding_size, section.length
    embedding = torch.nn.Embedding(events.n_items + 1, size, padding_idx=events.n_items)
    block = torch.nn.TransformerEncoderLayer(size, 1, 4 * size, section.dropout, batch_first=True, norm_first=True)
    body = torch.nn.TransformerEncoder(block, section.layers, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW([*embedding.parameters(), *body.parameters()], lr=section.learning_rate)
    later = torch.nn.Transformer.generate_square_subsequent_mask(length)
    lines = [
        events.item[a:b][-length - 1 :] for a, b in zip(events.user_offsets, events.user_offsets[1:], strict=False)
    ]
    padded = np.full((len(lines), length + 1), events.n_items)
    for n, line in enumerate(lines):
        padded[n, : len(line)] = line
    done, begun = 0, time.perf_counter()
    for n in range(batches):
        rows = torch.from_numpy(padded[n * 32 : n * 32 + 32])
        x = body(embedding(rows[:, :-1]), mask=later, is_causal=True)
        logits = x @ embedding.weight.T
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=events.n_items).backward()
        optimizer.step()
        done += int((rows[:, 1:] != events.n_items).sum())
    return done / (time.perf_counter() - begun)


def _als_rows(events: Interactions, config: Config, epochs: int) -> list[dict[str, Any]]:
    """Our sweeps beside those of `implicit`, on the same pairs, with as many factors and one thread each."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    from handsell.retrieval.models.als import extra_confidence, fit_als, summed

    section = config.retrieval["als"]
    pairs = extra_confidence(summed(events), section.alpha)

    def ours(n: int) -> float:
        begun = time.perf_counter()
        fit_als(events, section.model_copy(update={"epochs": n}))
        return time.perf_counter() - begun

    def theirs(n: int, cg: bool) -> float:
        model = AlternatingLeastSquares(section.embedding_size, iterations=n, use_cg=cg, num_threads=1, random_state=0)
        begun = time.perf_counter()
        model.fit(pairs, show_progress=False)
        return time.perf_counter() - begun

    with threadpool_limits(1):
        mine = epochs * pairs.nnz / (ours(1 + epochs) - ours(1))
        exact, cg = (epochs * pairs.nnz / (theirs(1 + epochs, way) - theirs(1, way)) for way in (False, True))
    return [_row("als, implicit exact", mine, 0.0, exact), _row("als, implicit CG", mine, 0.0, cg)]


def _under_ray(
    events: Interactions, config: Config, folder: Path, epochs: int, bare: dict[str, float]
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
    rows, sizes = [], Sizes(events.n_users, events.n_items)
    try:
        for name in counted:
            fit = resolve_name(retrievers()[name].job)
            once, longer = (
                fit(_with_epochs(config, name, n), folder / "fit", folder / "content", sizes, folder / f"{name}-{n}")
                for n in (1, 1 + epochs)
            )
            one = (longer - once) / epochs
            rows.append(_row(name, counted[name] / one, max(once - one, 0.0), bare[name]))
    finally:
        ray.shutdown()
    return rows


def _row(name: str, rate: float, start_s: float, bare: float) -> dict[str, Any]:
    return {
        "model": name,
        "examples/s": round(rate),
        "bare loop": round(bare),
        "of the bare loop": round(rate / bare, 3),
        "start s": round(start_s, 1),
    }


if __name__ == "__main__":
    main()
