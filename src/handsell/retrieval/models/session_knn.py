"""Session-based k nearest neighbors: items of past sessions that are similar to the current one.

Sources: [ludewig2018] for session neighbors with a decayed vector of the current session, [garg2019] for the decay
with the neighbor's age and with the distance of its items to the item that the two sessions share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import NONE, Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import RetrieverPlugin, SessionConfig
from handsell.retrieval.index.topk import find_top
from handsell.retrieval.sessions import Sessions, cut_sessions, find_current_sessions
from handsell.retrieval.sparse_rows import read_entries, select_top_entries

ROWS_AT_ONCE = 256
LAST_ITEMS = 20  # distinct newest items of the current session that are used; at most 24, see `_find_neighbors`
POPULARITY_PRIOR = (
    10.0  # added to an item's number of sessions in the popularity penalty; limits the gain of rare items
)
SEARCH = {
    "position_half_life": (1.5, 1.0, 2.0, 4.0),
    "length_exponent": (0.25, 0.1, 0.5),
    "last_boost": (1.0, 0.0, 0.5),
    "idf_exponent": (1.5, 0.0, 1.0, 2.0),
    "popularity_exponent": (0.3, 0.0, 0.15, 0.5),
    "repeat": (2.0, 0.5, 1.0, 4.0),
    "backward": (0.8, 0.4, 0.6, 1.0),
    "distance_half_life": (4.0, 1.0, 2.0, 8.0),
    "neighbors": (1500, 500, 200),
    "half_life_days": (90.0, 30.0, 1000.0),
}


class SessionKNNConfig(SessionConfig):
    neighbors: int = Field(1500, ge=1, description="number of most similar past sessions used")
    sessions: int = Field(500_000, ge=1, description="newest sessions kept")
    sessions_per_item: int = Field(2_000, ge=1, description="newest sessions kept per item")
    position_half_life: float = Field(
        1.5, gt=0, description="half-life of an item of the current session, in items back from the last"
    )
    last_boost: float = Field(1.0, ge=0, description="relative weight added to the last item of the session")
    idf_exponent: float = Field(
        1.5, ge=0, description="exponent of an item's log inverse session frequency; 0: all items equal"
    )
    half_life_days: float = Field(90.0, gt=0, description="half-life of a past session by age")
    length_exponent: float = Field(
        0.25, ge=0, description="a past session of n events is divided by n to this exponent"
    )
    distance_half_life: float = Field(
        4.0, gt=0, description="half-life of a neighbor's item, in events from the shared item"
    )
    backward: float = Field(0.8, ge=0, description="factor of items before the shared item; 1 for those after it")
    repeat: float = Field(2.0, ge=0, description="factor of the shared item itself")
    popularity_exponent: float = Field(
        0.3, ge=0, description="scores are divided by the item's sessions to this exponent"
    )


@dataclass(frozen=True)
class SessionKNN:
    """N past sessions, newest first, and the newest sessions that contain each of I items."""

    name: ClassVar[str] = "session_knn"
    sessions: Sessions
    holder: np.ndarray  # (H,) int32; item i is in sessions holder[offsets[i]:offsets[i + 1]]
    holder_offsets: np.ndarray  # (I + 1,) int32
    config: SessionKNNConfig

    @property
    def n_items(self) -> int:
        return len(self.holder_offsets) - 1

    @cached_property
    def _holds(self) -> sparse.csr_matrix:
        """(I, N) float32, 1 where a session contains an item."""
        shape = (self.n_items, len(self.sessions))
        return sparse.csr_matrix((np.ones(len(self.holder), np.float32), self.holder, self.holder_offsets), shape)

    @cached_property
    def _session_weight(self) -> np.ndarray:
        """(N,) float32 weight, larger for newer and shorter sessions."""
        age_days = (self.sessions.time.max(initial=0) - self.sessions.time) / DAY_US
        length = self.sessions.lengths**self.config.length_exponent
        return (np.exp2(-age_days / self.config.half_life_days) / length).astype(np.float32)

    @cached_property
    def _rarity(self) -> np.ndarray:
        """(I,) float32 log(1 + N / sessions with the item) ^ idf_exponent."""
        count = np.maximum(np.diff(self.holder_offsets), 1)
        return (np.log1p(len(self.sessions) / count) ** self.config.idf_exponent).astype(np.float32)

    @cached_property
    def _popular(self) -> np.ndarray:
        """(I,) float32 factor of an item's score, smaller for popular items."""
        count = np.diff(self.holder_offsets) + POPULARITY_PRIOR
        return (count**-self.config.popularity_exponent).astype(np.float32)

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = range(0, max(len(requests), 1), ROWS_AT_ONCE)
        some = [slice(start, start + ROWS_AT_ONCE) for start in starts]
        found = [select_top_entries(self._score_all(requests.take(rows)), k, eligible[rows]) for rows in some]
        return np.concatenate([items for items, _ in found]), np.concatenate([scores for _, scores in found])

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return scores (B, K); 0 where no neighbor contains the item."""
        return read_entries(self._score_all(requests), items, np.diff(self.holder_offsets) > 0)

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """Return scores (B, I) float32 with sorted columns."""
        session = find_current_sessions(requests, self.n_items, self.config.session_gap_minutes)[:, :LAST_ITEMS]
        row, neighbor, similarity, shared = self._find_neighbors(session)
        first = self.sessions.offsets[neighbor]
        lengths = self.sessions.offsets[neighbor + 1] - first  # P events in all
        pair = np.repeat(np.arange(len(neighbor)), lengths)
        begin = np.cumsum(lengths) - lengths
        place = np.arange(len(pair)) - begin[pair]
        item = self.sessions.item[first[pair] + place]
        meets = np.maximum.reduceat(np.where(item == shared[pair], place, -1), begin) if len(pair) else begin
        weight = (similarity[pair] * self._weigh_distance(place - meets[pair])).astype(np.float32)
        # (B, P) @ (P, I) sums the weights of a row item by item, always in the order of its neighbors.
        ends = np.searchsorted(row[pair], np.arange(len(session) + 1))
        by_row = sparse.csr_matrix((weight, np.arange(len(pair)), ends), (len(session), len(pair)))
        one = np.ones(len(pair), np.float32)
        found = by_row @ sparse.csr_matrix((one, item, np.arange(len(pair) + 1)), (len(pair), self.n_items))
        found.sort_indices()
        found.data *= self._popular[found.indices]
        return found

    def _find_neighbors(self, session: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the sessions nearest to rows (B, T): arrays of row, neighbor, similarity, latest shared item."""
        used = session != NONE
        age = np.broadcast_to(np.arange(session.shape[1]), session.shape)  # in items; 0 is the last one
        weight = np.exp2(-age / self.config.position_half_life) * self._rarity[session]
        weight[:, :1] *= 1 + self.config.last_boost
        like = self._weigh(session, used, weight)
        # With powers of two as weights, the exponent of a sum identifies the latest item in common.
        common = self._weigh(session, used, np.exp2(LAST_ITEMS - 1.0 - age))
        none = np.zeros(0, np.int64)
        rows, chosen = [none], [none]
        like.data *= self._session_weight[like.indices]
        for b in range(len(session)):
            near = find_top(like.data[like.indptr[b] : like.indptr[b + 1]], self.config.neighbors)
            chosen.append(near + like.indptr[b])
            rows.append(np.full(len(near), b))
        row, at = np.concatenate(rows), np.concatenate(chosen)
        latest = LAST_ITEMS - np.frexp(common.data[at])[1]
        return row, like.indices[at], like.data[at], session[row, latest]

    def _weigh(self, session: np.ndarray, used: np.ndarray, weight: np.ndarray) -> sparse.csr_matrix:
        """Return the sums (B, N) of the weights of a row's items over the sessions that contain them."""
        ends = offsets_from_counts(used.sum(axis=1))
        data = weight[used].astype(np.float32)
        product = sparse.csr_matrix((data, session[used], ends), (len(session), self.n_items)) @ self._holds
        product.sort_indices()
        return product

    def _weigh_distance(self, distance: np.ndarray) -> np.ndarray:
        """Return the weights of items `distance` events after the shared item (before it if negative)."""
        steps = np.maximum(np.abs(distance) - 1, 0)
        weight = np.exp2(-steps / self.config.distance_half_life)
        weight[distance < 0] *= self.config.backward
        weight[distance == 0] *= self.config.repeat
        return weight

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name, array in self._list_arrays().items():
            np.save(path / f"{name}.npy", array)
        (path / "config.json").write_text(self.config.model_dump_json())

    def _list_arrays(self) -> dict[str, np.ndarray]:
        s = self.sessions
        named = {"item": s.item, "offsets": s.offsets, "time": s.time}
        return {**named, "holder": self.holder, "holder_offsets": self.holder_offsets}

    @classmethod
    def load(cls, path: Path) -> SessionKNN:
        names = ("item", "offsets", "time", "holder", "holder_offsets")
        item, offsets, time, holder, ends = (np.load(path / f"{name}.npy", mmap_mode="r") for name in names)
        config = SessionKNNConfig.model_validate_json((path / "config.json").read_text())
        return cls(Sessions(item, offsets, time), holder, ends, config)


def fit_session_knn(interactions: Interactions, config: SessionKNNConfig, content: object = None) -> SessionKNN:
    """Keep the newest sessions of at least two events, indexed by item."""
    sessions = cut_sessions(interactions, config.session_gap_minutes).with_at_least(2).take_newest(config.sessions)
    keys = np.unique(sessions.item.astype(np.int64) * max(len(sessions), 1) + sessions.session_of_event)
    item, session = np.divmod(keys, max(len(sessions), 1))  # by item, newest session first
    starts = np.searchsorted(item, np.arange(interactions.n_items))
    kept = np.arange(len(keys)) - starts[item] < config.sessions_per_item
    offsets = np.searchsorted(item[kept], np.arange(interactions.n_items + 1)).astype(np.int32)
    return SessionKNN(sessions, session[kept].astype(np.int32), offsets, config)


RETRIEVER = RetrieverPlugin(
    "session_knn",
    SessionKNNConfig,
    SessionKNN,
    fit_session_knn,
    purpose="only the current session of a visitor is known",
    needs="sessions",
    order=12,
    search=SEARCH,
)
