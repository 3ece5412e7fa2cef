"""Fitting of the ranking transformer, in one process or in each Ray Train worker.

The loss is the listwise softmax (@cao2007listnet): the cross entropy between the labels of a list, divided by their
sum, and the softmax of its scores. A sampled negative stands for several candidates, in the softmax and in the
attention, so that a sampled list teaches what the whole one is like.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from handsell.core.errors import TrainingError
from handsell.ranking.calibration import Calibration, fit_calibration
from handsell.ranking.config import RankingConfig, TransformerConfig
from handsell.ranking.examples import HISTORY_LABEL
from handsell.ranking.neural.network import TransformerNetwork
from handsell.ranking.shards import RankingExamples, read_shards, shard_folders
from handsell.ranking.transformer import LEAST_WIDTH, TransformerRanker, encode_rows, split_knots
from handsell.ranking.xgboost_ranker import compute_fused_margin

log = logging.getLogger(__name__)

SEGMENTS = 12  # of the piecewise linear table of a feature, between quantiles
QUANTILE_ROWS = 200_000  # rows from which the quantiles are computed
IMPORTANCE_ROWS = 5_000
TOP = 10


@dataclass(frozen=True)
class Workers:
    """What workers that train together exchange; by default, one process trains alone."""

    rank: int = 0
    share_gradients: Callable[[nn.Module], nn.Module] = lambda network: network
    agree_on_steps: Callable[[int], int] = lambda steps: steps
    add_up: Callable[[np.ndarray], np.ndarray] = lambda sums: sums
    device: str = "cpu"


ALONE = Workers()


@dataclass(frozen=True)
class PaddedLists:
    """B lists of at most L rows, as tensors."""

    x: torch.Tensor  # (B, L, F)
    label: torch.Tensor  # (B, L) float, 0 for history and padding
    weight: torch.Tensor  # (B, L)
    past: torch.Tensor  # (B, L) bool, rows of the history
    real: torch.Tensor  # (B, L) bool, no padding
    prior: torch.Tensor  # (B, L) multiple of the fused score


class ListBatches:
    """Batches of the lists of sorted examples."""

    def __init__(self, rows: RankingExamples, prior: float, size: int, device: str):
        self.rows, self.size, self.device = rows, size, device
        self.begin = (
            np.append(np.flatnonzero(np.diff(rows.qid, prepend=-1)), len(rows)) if len(rows) else np.zeros(1, int)
        )
        self.prior = compute_fused_margin(rows.x, rows.features, prior)

    def __len__(self) -> int:
        return -(-(len(self.begin) - 1) // self.size)

    def read(self, rng: np.random.Generator | None = None) -> Iterator[PaddedLists]:
        """Yield all lists, in random order if `rng` is given."""
        lists = np.arange(len(self.begin) - 1)
        if rng is not None:
            lists = rng.permutation(lists)
        for start in range(0, len(lists), self.size):
            yield self._pad(lists[start : start + self.size])

    def _pad(self, lists: np.ndarray) -> PaddedLists:
        begin, length = self.begin[lists], self.begin[lists + 1] - self.begin[lists]
        column = np.arange(length.max())
        real = column < length[:, None]
        place = np.where(real, begin[:, None] + column, 0)
        label = np.where(real, self.rows.label[place], 0)
        arrays = (
            self.rows.x[place],
            np.maximum(label, 0).astype(np.float32),
            np.where(real, self.rows.weight[place], 1).astype(np.float32),
            label == HISTORY_LABEL,
            real,
            self.prior[place],
        )
        return PaddedLists(*(torch.from_numpy(array).to(self.device) for array in arrays))


def fit_transformer(
    examples: Path, validation: Path, config: RankingConfig, features: tuple[str, ...], prior: float = 0.0
) -> TransformerRanker:
    """Fit on all shards of two folders in this process; raises TrainingError where there are no examples."""
    train, held_out = (read_shards(shard_folders(out), features, history=True) for out in (examples, validation))
    network = train_network(train, held_out, config, prior, find_knots(train))
    return build_ranker(network, train.features, held_out, config, prior)


def train_network(
    train: RankingExamples, validation: RankingExamples, config: RankingConfig, prior: float, knots: np.ndarray,
    workers: Workers = ALONE,
) -> TransformerNetwork:  # fmt: skip
    """Train on whole lists; return the network of the epoch with the best NDCG@10 on the validation lists.

    `knots` are those of `find_knots`, the same for all workers.

    The same seed, examples and number of workers give the same network on the CPU.
    """
    if not len(train):
        raise TrainingError(
            "expected examples from the ranker window, got none: no positive was among the candidates; increase "
            "split.ranker_days or the sources' k, or set ranking.enabled = false"
        )
    settings, rng = config.transformer, np.random.default_rng((config.seed, workers.rank))
    torch.manual_seed(config.seed)
    network = TransformerNetwork(knots, settings.embedding_size, settings.dropout).to(workers.device)
    shared = workers.share_gradients(network)
    torch.manual_seed(config.seed + workers.rank)  # of the dropout
    batches, held_out = (ListBatches(rows, prior, settings.batch_size, workers.device) for rows in (train, validation))
    steps = workers.agree_on_steps(len(batches))
    optimizer, schedule = _build_optimizer(network, settings, steps)
    best, kept, since = -1.0, copy.deepcopy(network), 0
    for epoch in range(settings.epochs):
        loss = _train_epoch(shared, batches, steps, optimizer, schedule, rng)
        found = measure_ndcg(network, held_out, workers)
        log.info("ranker: epoch %d, loss %.4f, validation NDCG@10 %.4f", epoch + 1, loss, found)
        if found > best or np.isnan(found):
            best, kept, since = found, copy.deepcopy(network), 0
        else:
            since += 1
        if since >= settings.early_stopping_epochs:
            break
    if not all(p.isfinite().all() for p in kept.parameters()):
        raise TrainingError(
            f"expected finite weights of the ranking transformer, got NaN or infinity with learning_rate = "
            f"{settings.learning_rate:g}: lower ranking.transformer.learning_rate, or train trees (ranking.model)"
        )
    return kept.cpu().eval()


def find_knots(rows: RankingExamples) -> np.ndarray:
    """Return (F, SEGMENTS + 1) float32 distinct quantiles of each feature, padded with NaN."""
    x = rows.x[rows.label != HISTORY_LABEL]
    x = x[:: max(-(-len(x) // QUANTILE_ROWS), 1)]
    knots = np.full((x.shape[1], SEGMENTS + 1), np.nan, np.float32)
    for f in range(x.shape[1]):
        known = x[np.isfinite(x[:, f]), f].astype(np.float64)
        if len(known):
            values = np.unique(known)
            if len(values) > SEGMENTS + 1:
                values = np.unique(np.quantile(known, np.linspace(0, 1, SEGMENTS + 1)))
            values = np.unique(values.astype(np.float32))
            far = np.append(True, np.diff(values.astype(np.float64)) > LEAST_WIDTH)
            knots[f, : far.sum()] = values[far]
    return knots


def _build_optimizer(
    network: nn.Module, settings: TransformerConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW, and its learning rate: rising over half an epoch, then falling to 0 over all epochs."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    warm, total = max(steps // 2, 1), settings.epochs * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.02, 1 - step / total))
    )
    return optimizer, schedule


def _train_epoch(
    network: nn.Module, batches: ListBatches, steps: int, optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler, rng: np.random.Generator,
) -> float:  # fmt: skip
    network.train()
    total = 0.0
    for _, lists in zip(range(steps), batches.read(rng), strict=False):
        optimizer.zero_grad()
        loss = compute_loss(network(lists.x, lists.weight, lists.past, lists.real, lists.prior), lists)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
    return total / max(steps, 1)


def compute_loss(score: torch.Tensor, lists: PaddedLists) -> torch.Tensor:
    """Return the listwise softmax loss of scores (B, L)."""
    logit = score + torch.log(lists.weight.clamp(min=1))
    logit = logit.masked_fill(lists.past | ~lists.real, -1e9)
    target = lists.label / lists.label.sum(dim=1, keepdim=True).clamp(min=1)
    return -(target * logit.log_softmax(dim=1)).sum(dim=1).mean()


@torch.no_grad()
def measure_ndcg(network: TransformerNetwork, batches: ListBatches, workers: Workers = ALONE) -> float:
    """Return the mean NDCG@10 over the lists of all workers, with the labels as gains; NaN without lists."""
    network.eval()
    sums = np.zeros(2)
    for lists in batches.read():
        score = network(lists.x, lists.weight, lists.past, lists.real, lists.prior)
        score = score.masked_fill(lists.past | ~lists.real, -torch.inf)
        discount = 1 / torch.log2(torch.arange(2, TOP + 2, device=score.device))
        order = score.argsort(dim=1, descending=True, stable=True)[:, :TOP]
        ideal = lists.label.sort(dim=1, descending=True).values[:, :TOP]
        size = order.shape[1]
        gain = (lists.label.gather(1, order) * discount[:size]).sum(dim=1) / (ideal * discount[:size]).sum(dim=1)
        sums += (float(gain.sum()), len(gain))
    total, count = workers.add_up(sums)
    return total / count if count else float("nan")


def build_ranker(
    network: TransformerNetwork, features: tuple[str, ...], validation: RankingExamples, config: RankingConfig,
    prior: float,
) -> TransformerRanker:  # fmt: skip
    """Build the served ranker, calibrated on the validation lists."""
    weights = {name: p.detach().numpy().copy() for name, p in network.named_parameters()}
    weights |= {"knots": network.knots, "importance": measure_importance(network, validation)}
    prior *= float(weights.pop("prior_share"))
    ranker = TransformerRanker(features, weights, Calibration.logistic(), prior, config.history_items)
    raw = ranker.score_examples(validation)
    return replace(ranker, calibration=fit_calibration(raw, validation.label > 0, validation.weight))


@torch.no_grad()
def measure_importance(network: TransformerNetwork, rows: RankingExamples) -> np.ndarray:
    """Return the standard deviation (F,) float32 of what each feature adds to the embeddings of candidates."""
    x = rows.x[rows.label != HISTORY_LABEL][:IMPORTANCE_ROWS]
    if not len(x):
        return np.ones(x.shape[1], np.float32)
    basis = encode_rows(x, *split_knots(network.knots))
    table = network.table.detach().numpy()
    return np.array([np.sqrt((basis[:, f] @ table[f]).var(axis=0).sum()) for f in range(x.shape[1])], np.float32)
