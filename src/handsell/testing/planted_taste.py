"""Interactions in which the right neighbors are known by construction.

Users and items belong to BLOCKS blocks of equal taste.
"""

from __future__ import annotations

import numpy as np

from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.content_vectors import Content

END = 20_100 * DAY_US
BLOCKS = 4

# Small models and many steps: the planted data is tiny.
CONFIG = RetrievalConfig.model_validate(
    {
        "two_tower": {"embedding_size": 16, "hidden": 16, "epochs": 25, "batch_size": 256, "learning_rate": 0.01},
        "sasrec": {
            "embedding_size": 16,
            "length": 20,
            "epochs": 25,
            "batch_size": 256,
            "learning_rate": 0.01,
            "enabled": True,
        },
        "als": {"embedding_size": 8},
        "item_knn": {"shrinkage": 1.0},
    }
)


def find_block(items: np.ndarray) -> np.ndarray:
    """Return the block (0 to BLOCKS - 1) of each item number."""
    return np.asarray(items) % BLOCKS


def plant_blocks(
    rng: np.random.Generator, users: int = 120, items: int = 80, per_user: int = 14, untouched: int = 8
) -> tuple[Interactions, Content]:
    """Return events and content vectors in which user u likes items of block u % BLOCKS.

    Each user has `per_user` likes and skips one item of the next block. The last `untouched` items have no event.
    """
    touched = items - untouched
    user = np.repeat(np.arange(users, dtype=np.int32), per_user + 1)
    own = rng.integers(0, touched // BLOCKS, (users, per_user)) * BLOCKS + np.arange(users)[:, None] % BLOCKS
    other = rng.integers(0, touched // BLOCKS, (users, 1)) * BLOCKS + (np.arange(users)[:, None] + 1) % BLOCKS
    item = np.concatenate([own, other], axis=1).astype(np.int32)
    weight = np.concatenate([rng.choice([1.0, 2.0], own.shape), np.full(other.shape, -1.0)], axis=1)
    time = END - DAY_US * np.arange(per_user + 1, 0, -1) - rng.integers(0, 1000, (users, 1))
    vectors = np.eye(BLOCKS, 6)[find_block(np.arange(items))] + 0.1 * rng.standard_normal((items, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    events = Interactions(
        user, item.ravel(), np.zeros(len(user), np.int8), time.ravel(), weight.ravel().astype(np.float32), users, items
    )
    return events, Content(vectors.astype(np.float32))


def plant_changed_tastes(rng: np.random.Generator, users: int = 160, items: int = 80) -> tuple[Interactions, Content]:
    """Return events and content vectors in which a dislike predicts the later likes.

    User u likes two items of each of two blocks, dislikes two of the second block, and then likes only the first.
    """
    first = np.arange(users) % BLOCKS
    second = (first + 1 + rng.integers(0, BLOCKS - 1, users)) % BLOCKS
    block = np.stack([first, second, first, second, second, second, *[first] * 8], axis=1)
    weight = np.tile(np.array([1, 1, 1, 1, -1, -1, *[1] * 8], np.float32), (users, 1))
    item = rng.integers(0, items // BLOCKS, block.shape) * BLOCKS + block
    time = END - DAY_US * np.arange(block.shape[1], 0, -1) + np.zeros((users, 1), np.int64)
    user = np.repeat(np.arange(users, dtype=np.int32), block.shape[1])
    events = Interactions(
        user, item.ravel().astype(np.int32), np.zeros(len(user), np.int8), time.ravel(), weight.ravel(), users, items
    )
    return events, Content(np.eye(BLOCKS, dtype=np.float32)[find_block(np.arange(items))])


def build_requests(*histories: list[tuple[int, float]], length: int = 20, time: int = END) -> Requests:
    """Build one request per history of (item, weight) pairs, oldest first.

    The events are one minute apart; the last is one minute before `time` (µs). The users are unknown (-1).
    """
    rows = len(histories)
    past = History.empty(rows, length)
    for b, history in enumerate(histories):
        for place, (item, weight) in enumerate(reversed(history), start=1):
            past.item[b, -place], past.weight[b, -place] = item, weight
            past.type[b, -place], past.time[b, -place] = 0, time - place * 60_000_000
    nothing = np.zeros((rows, 0))
    return Requests(
        user=np.full(rows, -1, np.int32),
        time=np.full(rows, time),
        surface=np.zeros(rows, np.int8),
        history=past,
        profile=Profile(*(nothing.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(rows), Ragged.empty(rows, np.int64)),
        exclude=Ragged.empty(rows),
    )


def allow_all(requests: Requests, items: int) -> np.ndarray:
    """Return the (B, I) mask in which every item is eligible."""
    return np.ones((len(requests), items), bool)
