"""Sequential rules item → item from sessions, weighted by distance and direction.

Sources: [ludewig2018] for sequential rules weighted by distance, [garg2019] for the decay with the age of a session and
with the position in the current one, [deshpande2004itemtopn] for conditional probability normalized by popularity. With
`backward` 0 and `steps` 1 it is a first-order Markov chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import RetrieverPlugin, SessionConfig
from handsell.retrieval.index.item_to_item import ListRetriever
from handsell.retrieval.sessions import Sessions, cut_sessions, find_current_sessions

SEARCH = {
    "position_half_life": (1.0, 0.5, 2.0, 4.0),
    "backward": (0.6, 0.0, 0.3, 1.0),
    "length_exponent": (0.25, 0.0, 0.5),
    "repeat": (2.0, 0.5, 1.0, 4.0),
    "source_exponent": (0.7, 0.4, 1.0),
    "popularity_exponent": (0.3, 0.0, 0.15, 0.5),
    "distance_half_life": (3.0, 1.0, 2.0, 6.0),
    "shrinkage": (10.0, 1.0, 50.0),
    "half_life_days": (90.0, 30.0, 1000.0),
}


class TransitionsConfig(SessionConfig):
    neighbors: int = Field(500, ge=1, description="number of strongest rules kept per item")
    steps: int = Field(15, ge=1, description="largest distance of two items, in events")
    distance_half_life: float = Field(3.0, gt=0, description="half-life of a pair by distance, in events")
    backward: float = Field(0.6, ge=0, description="factor of pairs in reverse order; 0: only later items")
    repeat: float = Field(2.0, ge=0, description="factor of an item's rule to itself")
    position_half_life: float = Field(
        1.0, gt=0, description="half-life of an item of the current session, in items back from the last"
    )
    half_life_days: float = Field(90.0, gt=0, description="half-life of a past session by age")
    length_exponent: float = Field(
        0.25, ge=0, description="a past session of n events is divided by n to this exponent"
    )
    source_exponent: float = Field(
        0.7, ge=0, description="a rule is divided by the events of its first item to this exponent"
    )
    popularity_exponent: float = Field(
        0.3, ge=0, description="a rule is divided by the events of its second item to this exponent"
    )
    shrinkage: float = Field(
        10.0, ge=0, description="added to both numbers of events; reduces rules with little support"
    )


@dataclass(frozen=True)
class Transitions(ListRetriever):
    """Row i of the lists has the items that occur near i; the last item of the session has the largest weight."""

    name: ClassVar[str] = "transitions"
    config_type: ClassVar[type[TransitionsConfig]] = TransitionsConfig

    def weigh_session(self, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
        item = find_current_sessions(requests, len(self.known), self.config.session_gap_minutes)
        age = np.arange(item.shape[1])  # in items; 0 is the last one
        return item, np.broadcast_to(np.exp2(-age / self.config.position_half_life), item.shape)


def fit_transitions(interactions: Interactions, config: TransitionsConfig, content: object = None) -> Transitions:
    """Sum the pairs up to `steps` events apart over sessions, normalized by powers of both items' events."""
    sessions = cut_sessions(interactions, config.session_gap_minutes).with_at_least(2)
    weight = _weigh_events(sessions, config)
    pairs = sparse.csr_matrix((interactions.n_items, interactions.n_items))
    for steps in range(config.steps + 1):
        pairs = pairs + _sum_pairs(sessions, steps, weight, config, pairs.shape)
    aged = np.exp2(-_compute_age_days(sessions) / config.half_life_days)[sessions.session_of_event]
    count = np.bincount(sessions.item, aged, minlength=interactions.n_items) + max(config.shrinkage, 1e-9)
    source, target = sparse.diags(count**-config.source_exponent), sparse.diags(count**-config.popularity_exponent)
    return Transitions.from_pairs((source @ pairs @ target).tocsr(), config)


def _sum_pairs(
    sessions: Sessions, steps: int, weight: np.ndarray, config: TransitionsConfig, shape: tuple[int, int]
) -> sparse.csr_matrix:
    """Return summed weights (I, I) of the event pairs `steps` apart in a session; 0 pairs an event with itself."""
    first = np.flatnonzero(sessions.place + steps < sessions.lengths[sessions.session_of_event])
    a, b = sessions.item[first], sessions.item[first + steps]
    near = weight[first] * np.exp2(-max(steps - 1, 0) / config.distance_half_life)
    if steps == 0:
        return sparse.csr_matrix((near * config.repeat, (a, b)), shape)
    after = sparse.csr_matrix((near, (a, b)), shape)
    return after + config.backward * after.T


def _weigh_events(sessions: Sessions, config: TransitionsConfig) -> np.ndarray:
    """Return event weights (E,), larger in newer and shorter sessions."""
    weight = np.exp2(-_compute_age_days(sessions) / config.half_life_days) / sessions.lengths**config.length_exponent
    return weight[sessions.session_of_event]


def _compute_age_days(sessions: Sessions) -> np.ndarray:
    return (sessions.time.max(initial=0) - sessions.time) / DAY_US


RETRIEVER = RetrieverPlugin(
    "transitions",
    TransitionsConfig,
    Transitions,
    fit_transitions,
    purpose="the next item depends on the last one or two",
    needs="order of events",
    order=13,
    auto_selectable=True,
    search=SEARCH,
)
