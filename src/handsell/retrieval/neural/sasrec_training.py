"""Training of SASRec: every position of a user's history predicts the next liked item, among all items.

Sources: [kang2018] for the model; [klenitskiy2023] for the full softmax, which is much better than few negatives;
[yi2019] for the correction of drawn negatives by their log probability, where the catalog is too large for the full
softmax. The same loop runs in one process and, with a wrapped model, in every worker of Ray Train.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from handsell.data.interactions import Interactions
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.sasrec import SASRec, SASRecConfig, Weights, build_sasrec
from handsell.retrieval.neural.device import Device, place
from handsell.retrieval.neural.optimizers import leave_out_compiler
from handsell.retrieval.neural.pair_vectors import set_initial_vectors
from handsell.retrieval.neural.sasrec_rows import SequenceBatch, SequenceRows
from handsell.retrieval.neural.training import (
    load_weights,
    read_weights,
    reduce_over_workers,
    use_one_thread,
    use_reduced_precision,
)

log = logging.getLogger(__name__)
ID_DROPOUT = 0.15  # share of items without id embedding in training, so that content is learned
INITIAL_DEVIATION = 0.02  # standard deviation of initial weights
WARM_UP = 0.05  # share of the steps in which the learning rate rises
LOGITS_AT_ONCE = 128  # rows of the softmax, to fit in the processor's cache


class Layer(nn.Module):
    """Pre-norm attention and feed-forward; models/sasrec.py reads the weights by name."""

    def __init__(self, size: int, dropout: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.wide, self.narrow = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, L, D) → (B, L, D). Padding is at the end, which causal attention does not read."""
        q, k, v = self.qkv(self.norm1(x)).unsqueeze(1).chunk(3, dim=3)  # one head
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        x = x + self.dropout(self.out(seen))
        return x + self.dropout(self.narrow(F.relu(self.wide(self.norm2(x)))))


class Transformer(nn.Module):
    """The transformer over item and position embeddings; models/sasrec.py reads the weights by name."""

    content: torch.Tensor  # (I, C), a buffer

    def __init__(self, n_items: int, content: np.ndarray | None, config: SASRecConfig):
        super().__init__()
        size = config.embedding_size
        self.config = config
        self.embedding = nn.Parameter(torch.randn(n_items, size) * INITIAL_DEVIATION)
        self.position = nn.Parameter(torch.randn(config.length, size) * INITIAL_DEVIATION)
        self.disliked = nn.Parameter(torch.randn(size) * INITIAL_DEVIATION)
        self.layers = nn.ModuleList(Layer(size, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("content", None if content is None else torch.tensor(content), persistent=False)
        self.projection = None if content is None else nn.Linear(content.shape[1], size, bias=False)

    def compute_inputs(self, items: torch.Tensor) -> torch.Tensor:
        """Return input vectors (N, D) of items (N,); in training, some without their id embedding."""
        x = self.embedding.index_select(0, items)
        if self.projection is None:
            return x
        if self.training:
            x = x * (torch.rand(len(items), 1, device=x.device) >= ID_DROPOUT)
        return x + self.projection(self.content[items])

    def compute_queries(self, directions: torch.Tensor, batch: SequenceBatch) -> torch.Tensor:
        """Return queries (N, D) at `batch.place`, given unit vectors (U, D) of the batch's items."""
        x = F.embedding(place(batch.history, directions), directions) * directions.shape[1] ** 0.5
        x = torch.where(place(batch.liked, x)[:, :, None], x, self.disliked - x)
        x = self.dropout(x + self.position[: x.shape[1]])
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x.flatten(0, 1).index_select(0, place(batch.place, x)))
        return F.normalize(x, dim=1) / self.config.temperature if self.config.temperature else x

    def encode(self, batch: SequenceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return queries (N, D) and item vectors (U, D), whose products are the logits."""
        vectors = self.compute_inputs(place(batch.items, self.embedding))
        directions = F.normalize(vectors, dim=1)
        return self.compute_queries(directions, batch), directions if self.config.temperature else vectors

    def forward(self, batch: SequenceBatch) -> torch.Tensor:
        """Return the mean loss over the batch's targets."""
        queries, items = self.encode(batch)
        log_chance = None if batch.log_chance is None else place(batch.log_chance, items)
        compute = compute_softmax_loss if items.is_cuda else SoftmaxLoss.apply
        return compute(queries, items, log_chance, place(batch.target, items))


def compute_softmax_loss(queries: Any, items: Any, log_chance: Any, target: Any) -> torch.Tensor:
    """Return the loss of SoftmaxLoss with all logits (N, U) in memory: faster on a GPU."""
    logits = (queries @ items.T).float()
    if log_chance is not None:
        rows = torch.arange(len(target), device=logits.device)
        logits = logits - log_chance
        logits = logits.index_put((rows, target), log_chance[target], accumulate=True)
    return F.cross_entropy(logits, target)


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of queries (N, D) over items (U, D); target (N,) are rows of the items.

    `log_chance` (U,), or None, is subtracted from the logits except at targets. The gradients are computed in the same
    pass over blocks of rows, so that the logits (N, U) are never in memory as a whole.
    """

    @staticmethod
    def forward(ctx: Any, queries: Any, items: Any, log_chance: Any, target: Any) -> torch.Tensor:
        to_queries, to_items = torch.empty_like(queries), torch.zeros_like(items)
        chance = torch.empty(len(queries))
        space = torch.empty(min(LOGITS_AT_ONCE, len(queries)), len(items))
        for start in range(0, len(queries), LOGITS_AT_ONCE):
            part = slice(start, start + LOGITS_AT_ONCE)
            wanted = target[part, None]
            error = torch.mm(queries[part], items.T, out=space[: len(wanted)])
            if log_chance is not None:
                error.sub_(log_chance).scatter_add_(1, wanted, log_chance[wanted])
            torch.softmax(error, 1, out=error)
            chance[part] = error.gather(1, wanted)[:, 0]
            error.scatter_add_(1, wanted, torch.full(wanted.shape, -1.0))
            torch.mm(error, items, out=to_queries[part])
            to_items.addmm_(error.T, queries[part])
        ctx.save_for_backward(to_queries / len(queries), to_items / len(queries))
        return -chance.clamp_min(1e-30).log().mean()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:  # type: ignore[override]
        to_queries, to_items = ctx.saved_tensors
        return to_queries * gradient, to_items * gradient, None, None


@dataclass(frozen=True, slots=True)
class Epoch:
    """Progress after an epoch, counted from 1."""

    epoch: int
    loss: float
    ndcg: float  # validation NDCG@10; NaN without held-out users
    seconds_left: float

    @property
    def metrics(self) -> dict[str, float]:
        return {"epoch": self.epoch, "loss": self.loss, "ndcg": self.ndcg, "seconds_left": self.seconds_left}

    def format_line(self, config: SASRecConfig) -> str:
        judged = "" if np.isnan(self.ndcg) else f" validation NDCG@10 {self.ndcg:.4f}"
        done = f"sasrec epoch {self.epoch}/{config.epochs} loss {self.loss:.4f}"
        return f"{done}{judged} time left {self.seconds_left:.0f} s"


class Training:
    """Training loop of one worker, up to the best weights; `get_state` and `restore` resume an interrupted one."""

    def __init__(
        self,
        model: Transformer,
        rows: SequenceRows,
        *,
        wrap: Callable[[Any], Any] = lambda model: model,
        trained: np.ndarray | None = None,
        steps: int | None = None,
        worker: int = 0,
        device: str = "cpu",
    ):
        """`wrap` makes the model data parallel; `trained` (I,) and `steps` per epoch must be equal in all workers."""
        self.model, self.rows, self.config, self.worker = model, rows, rows.config, worker
        self.device = Device(device)
        self.parallel = wrap(model.to(self.device.torch))
        self.trained = rows.trained if trained is None else trained
        self.steps = steps or rows.steps
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.reg,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.done, self.best, self.best_epoch = 0, -1.0, 0
        self.best_weights: dict[str, np.ndarray] = {}

    def _compute_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted over all epochs."""
        total = self.steps * self.config.epochs
        share = min((step + 1) / max(WARM_UP * total, 1), 0.5 + 0.5 * math.cos(math.pi * step / total))
        return self.config.learning_rate * share

    def run(self, after_epoch: Callable[[Epoch], None]) -> None:
        """Run the remaining epochs, until `patience` of them are not better; then restore the best weights."""
        begun, first = time.monotonic(), self.done
        while self.done < self.config.epochs and self.done - self.best_epoch < self.config.patience:
            loss = self._run_epoch()
            ndcg = self.validate()
            self.done += 1
            if np.isnan(ndcg) or ndcg > self.best:
                self.best, self.best_epoch = ndcg, self.done
                self.best_weights = read_weights(self.model) if ndcg == ndcg else {}
            left = (time.monotonic() - begun) / (self.done - first) * (self.config.epochs - self.done)
            after_epoch(Epoch(self.done, loss, ndcg, left))
        if self.best_weights:
            load_weights(self.model, self.best_weights)

    def _run_epoch(self) -> float:
        """Run one pass over the data and return its mean loss."""
        rng = np.random.default_rng((self.config.seed, self.done, self.worker))
        torch.manual_seed(int(rng.integers(2**62)))  # of dropout: a resumed training continues identically
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device.torch)
        for n, batch in enumerate(self.rows.iterate_batches(self.steps, self.trained, rng)):
            self.optimizer.param_groups[0]["lr"] = self._compute_rate(self.done * self.steps + n)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.device.compute_loss(self.parallel, batch)
            self.device.step(loss, self.optimizer)
            total += loss.detach()
        return float(total) / self.steps

    def validate(self) -> float:
        """Return NDCG@10 of the held-out likes over all workers; NaN without any."""
        self.model.eval()
        gain, many = 0.0, 0
        with torch.no_grad():
            for batch in self.rows.iterate_validation(self.trained):
                queries, items = self.model.encode(batch)
                logits, target = (queries @ items.T).cpu().numpy(), batch.target
                own = logits[np.arange(len(target)), target][:, None]
                rank = np.where(target >= 0, (logits > own).sum(axis=1), len(items))
                gain += (1 / np.log2(rank[rank < 10] + 2)).sum()
                many += len(rank)
        gain, many = reduce_over_workers(np.array([gain, many], np.float64), "sum")
        return float(gain / many) if many else math.nan

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything on which the next epoch depends."""
        moments = self.optimizer.state_dict()["state"]
        return {
            **{f"model.{name}": w for name, w in read_weights(self.model).items()},
            **{f"best.{name}": w for name, w in self.best_weights.items()},
            **{f"adam.{n}.{key}": value.cpu().numpy() for n, kept in moments.items() for key, value in kept.items()},
            "course": np.array([self.done, self.best, self.best_epoch], np.float64),
        }

    def restore(self, state: Weights) -> None:
        """Continue from the state of `get_state`."""
        load_weights(
            self.model, {name.removeprefix("model."): w for name, w in state.items() if name.startswith("model.")}
        )
        self.best_weights = {name.removeprefix("best."): w for name, w in state.items() if name.startswith("best.")}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, n, key = name.split(".")
                moments.setdefault(int(n), {})[key] = torch.from_numpy(np.array(value))
        self.done, self.best, self.best_epoch = int(state["course"][0]), state["course"][1], int(state["course"][2])
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def build_transformer(n_items: int, content: Content | None, config: SASRecConfig) -> Transformer:
    torch.manual_seed(config.seed)
    known = content is not None and bool(content.vectors.any())
    return Transformer(n_items, np.ascontiguousarray(content.vectors, np.float32) if known else None, config)  # type: ignore[union-attr]


def fit_sasrec(interactions: Interactions, config: SASRecConfig, content: Content | None = None) -> SASRec:
    """Train in this process, on one thread."""
    rows = SequenceRows(interactions, config)
    model = build_transformer(interactions.n_items, content, config)
    if rows.steps:
        set_initial_vectors(model.embedding, rows)
        with use_one_thread(), use_reduced_precision(), leave_out_compiler():
            Training(model, rows).run(lambda epoch: log.info(epoch.format_line(config)))
    else:
        log.warning("sasrec: no like follows another event of its user; item vectors are from content alone")
    return build_sasrec(read_weights(model), content, rows.trained, cosine=config.temperature > 0)
