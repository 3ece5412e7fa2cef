"""Training of the two-tower model: the events before a like predict the liked item.

Sources: [yi2019] for the softmax over the items of the batch, with logits corrected by the log of their sampling
probability; [yang2020] for additional uniformly drawn negatives, without which rarely liked items are never negatives;
[volkovs2017] for the dropout of id embeddings, so that items outside the fit window can be scored by content alone. In
the second half of training, each row may have hard negatives (hard_negatives.py). The same loop runs in one process
and, with a wrapped model, in every worker of Ray Train.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from handsell.core.batches import History
from handsell.data.interactions import Interactions
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.two_tower import (
    CONTEXT,
    HISTORY,
    POOLS,
    TwoTower,
    TwoTowerConfig,
    build_two_tower,
    build_user_inputs,
)
from handsell.retrieval.neural.device import Device
from handsell.retrieval.neural.hard_negatives import HardNegatives
from handsell.retrieval.neural.optimizers import leave_out_compiler
from handsell.retrieval.neural.training import read_weights, use_one_thread

log = logging.getLogger(__name__)
ROWS_PER_USER = 32  # likes sampled per user and epoch; limits the influence of active users
ID_DROPOUT = 0.15  # share of items without id embedding in a batch, so that content is learned
INITIAL_DEVIATION = 0.05  # standard deviation of initial embeddings


class Towers(nn.Module):
    """Parameters and loss; models/two_tower.py reads the weights of `item` and `user` by name."""

    content: Any  # (I, D) tensor, a buffer, or None

    def __init__(self, n_items: int, content: np.ndarray | None, config: TwoTowerConfig):
        super().__init__()
        size = config.embedding_size
        self.temperature = config.temperature
        self.embedding = nn.Parameter(torch.randn(n_items, size) * INITIAL_DEVIATION)
        self.item = nn.Sequential(nn.Linear(size, config.hidden), nn.ReLU(), nn.Linear(config.hidden, size))
        width = POOLS * size + CONTEXT
        self.user = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, size))
        self.register_buffer("content", None if content is None else torch.tensor(content), persistent=False)
        self.projection = None if content is None else nn.Linear(content.shape[1], size, bias=False)

    def compute_inputs(self, items: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Return input vectors (N, E) of items (N,); `keep` (N, 1) is 0 where the id embedding is left out."""
        x = self.embedding[items] * keep
        return x if self.projection is None else x + self.projection(self.content[items])

    def forward(self, batch: TwoTowerBatch) -> torch.Tensor:
        """Return the mean loss of B rows, whose negatives are the other targets, drawn items and hard negatives."""
        device = self.embedding.device
        keep = torch.ones(len(batch.items), 1, device=device)
        if self.projection is not None:
            keep = (torch.rand(len(batch.items), 1, device=device) >= ID_DROPOUT).float()
        x = self.compute_inputs(batch.items, keep)
        history = x[batch.history]  # (B, T, E)
        pooled = torch.bmm(batch.pools, history)
        users = torch.cat([pooled.flatten(1), batch.context], 1)
        users = F.normalize(pooled[:, 0] + pooled[:, 1] + self.user(users), dim=1)
        candidates = x[batch.candidates]
        candidates = F.normalize(candidates + self.item(candidates), dim=1)
        logits = users @ candidates.T / self.temperature - batch.log_chance
        same = batch.candidates[None, :] == batch.candidates[: len(users), None]
        same.fill_diagonal_(False)  # the same item in another row is no negative
        logits = logits.masked_fill(same, -torch.inf)
        if batch.hard.shape[1]:
            mined = x[batch.hard.clamp(min=0)]
            mined = F.normalize(mined + self.item(mined), dim=2)
            own = torch.einsum("be,bne->bn", users, mined) / self.temperature
            logits = torch.cat([logits, own.masked_fill(batch.hard < 0, -torch.inf)], 1)
        return F.cross_entropy(logits, torch.arange(len(users), device=device))


@dataclass(frozen=True, slots=True)
class TwoTowerBatch:
    """B rows. Items are given as positions in `items`, the U distinct items of the batch."""

    items: torch.Tensor  # (U,)
    history: torch.Tensor  # (B, T) positions
    pools: torch.Tensor  # (B, POOLS, T)
    context: torch.Tensor  # (B, CONTEXT)
    candidates: torch.Tensor  # (B + N,) positions: first the B targets, then the drawn items
    log_chance: torch.Tensor  # (B + N,) log of the item's expected number of occurrences in the candidates
    hard: torch.Tensor  # (B, M) positions of each row's hard negatives, -1 as padding

    def to(self, device: torch.device) -> TwoTowerBatch:
        return (
            self
            if device.type == "cpu"
            else replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})
        )


class TwoTowerRows:
    """Training rows of one shard of users: a like, and the T events before it."""

    def __init__(self, interactions: Interactions, config: TwoTowerConfig):
        self.events = interactions.where(interactions.weight != 0)
        self.config = config
        self.start = self.events.user_offsets[self.events.user]  # (N,) first event of the same user
        liked_before = np.concatenate([[0], np.cumsum(self.events.weight > 0)])
        some = liked_before[:-1] > liked_before[self.start]
        self.targets = np.flatnonzero((self.events.weight > 0) & some)
        counts = np.bincount(self.events.item[self.targets], minlength=self.events.n_items)
        self.share = counts / max(counts.sum(), 1)

    @property
    def trained(self) -> np.ndarray:
        """(I,) bool: items whose id embedding is learned."""
        seen = np.bincount(self.events.item, minlength=self.events.n_items) > 0
        return seen & (len(self.targets) > 0)

    @property
    def per_epoch(self) -> int:
        """Rows per epoch."""
        per_user = np.bincount(self.events.user[self.targets], minlength=1)
        return int(np.minimum(per_user, ROWS_PER_USER).sum())

    def draw_epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Draw up to ROWS_PER_USER targets of each user, in random order."""
        shuffled = self.targets[rng.permutation(len(self.targets))]
        user = self.events.user[shuffled]
        order = np.argsort(user, kind="stable")
        first = np.searchsorted(user[order], user[order])
        kept = shuffled[order][np.arange(len(order)) - first < ROWS_PER_USER]
        return kept[rng.permutation(len(kept))]

    def iterate_batches(
        self, steps: int, rng: np.random.Generator, hard_negatives: HardNegatives | None = None
    ) -> Iterator[TwoTowerBatch]:
        rows = self.draw_epoch(rng)
        for chosen in np.array_split(rows, steps):
            yield self.build_batch(chosen, rng, hard_negatives)

    def build_batch(
        self, targets: np.ndarray, rng: np.random.Generator, hard_negatives: HardNegatives | None = None
    ) -> TwoTowerBatch:
        events = self.events
        at = targets[:, None] + np.arange(-HISTORY, 0)
        inside = at >= self.start[targets][:, None]
        at = np.where(inside, at, 0)
        past = History(
            np.where(inside, events.item[at], -1),
            events.type[at],
            events.time[at],
            np.where(inside, events.weight[at], 0),
        )
        item, pools, context = build_user_inputs(past, events.time[targets], events.n_items)
        drawn = rng.integers(events.n_items, size=min(len(targets) // 2 + 1, events.n_items))
        candidates = np.concatenate([events.item[targets], drawn])
        expected = len(targets) * self.share[candidates] + len(drawn) / events.n_items
        hard = np.zeros((len(targets), 0), np.int64)
        if hard_negatives is not None:
            hard = hard_negatives(events.user[targets], item, pools, context, rng)
        wanted = np.concatenate([item.ravel(), candidates, np.maximum(hard, 0).ravel()])
        items, place = np.unique(wanted, return_inverse=True)
        split, end = item.size, item.size + len(candidates)
        return TwoTowerBatch(
            torch.from_numpy(items.astype(np.int64)),
            torch.from_numpy(place[:split].reshape(item.shape)),
            torch.from_numpy(pools),
            torch.from_numpy(context),
            torch.from_numpy(place[split:end]),
            torch.from_numpy(np.log(expected).astype(np.float32)),
            torch.from_numpy(np.where(hard < 0, -1, place[end:].reshape(hard.shape))),
        )


def train(
    model: Towers,
    rows: TwoTowerRows,
    config: TwoTowerConfig,
    *,
    wrap: Callable[[Any], Any] = lambda model: model,
    steps: int | None = None,
    first_epoch: int = 0,
    worker: int = 0,
    device: str = "cpu",
    after_epoch: Callable[[int, float, float], None] | None = None,
) -> None:
    """Train the model in place. `wrap` makes it data parallel; `steps` per epoch must then agree between workers.

    `after_epoch(epoch, loss, seconds_left)` is called with epochs counted from 1.
    """
    home = Device(device)
    parallel = wrap(model.to(home.torch))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.reg)
    steps = steps or count_steps(rows, config)
    begun = time.monotonic()
    for epoch in range(first_epoch, config.epochs):
        rng = np.random.default_rng((config.seed, epoch, worker))
        total = torch.zeros((), dtype=torch.float64, device=home.torch)
        hard_negatives = None
        if config.hard_negatives and 2 * epoch >= config.epochs:  # the top ranks of a new model are random
            content = None if model.content is None else model.content.cpu().numpy()
            hard_negatives = HardNegatives.from_weights(
                read_weights(model), content, rows.events, config.hard_negatives, rng
            )
        for batch in rows.iterate_batches(steps, rng, hard_negatives):
            optimizer.zero_grad()
            loss = home.compute_loss(parallel, batch.to(home.torch))
            home.step(loss, optimizer)
            total += loss.detach()
        left = (time.monotonic() - begun) / (epoch + 1 - first_epoch) * (config.epochs - epoch - 1)
        if after_epoch:
            after_epoch(epoch + 1, float(total) / steps, left)


def count_steps(rows: TwoTowerRows, config: TwoTowerConfig) -> int:
    """Return the batches per epoch; 0 where no like follows another like of its user."""
    return -(-rows.per_epoch // config.batch_size)


def build_towers(n_items: int, content: Content | None, config: TwoTowerConfig) -> Towers:
    torch.manual_seed(config.seed)
    known = content is not None and bool(content.vectors.any())
    return Towers(n_items, np.ascontiguousarray(content.vectors, np.float32) if known else None, config)  # type: ignore[union-attr]


def fit_two_tower(interactions: Interactions, config: TwoTowerConfig, content: Content | None = None) -> TwoTower:
    """Train in this process, on one thread."""
    rows = TwoTowerRows(interactions, config)
    model = build_towers(interactions.n_items, content, config)
    if count_steps(rows, config):
        with use_one_thread(), leave_out_compiler():
            train(model, rows, config, after_epoch=lambda *at: log.info(format_progress(config, *at)))
    else:
        log.warning("two_tower: no like follows another like of its user; item vectors are from content alone")
    return build_two_tower(read_weights(model), content, rows.trained)


def format_progress(config: TwoTowerConfig, epoch: int, loss: float, seconds_left: float) -> str:
    return f"two_tower epoch {epoch}/{config.epochs} loss {loss:.4f} time left {seconds_left:.0f} s"
