"""A reason for every item, chosen only from what is true of this request.

Reasons are tried from the most to the least telling; the first that holds is given.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from handsell.catalog.snapshot import ALWAYS, Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.units import DAY_US
from handsell.data.config import EventsConfig
from handsell.reranking.similarity import creators, tags_of
from handsell.retrieval.config import retrievers

REASONS = (
    "recommended_for_you",  # nothing more telling is true
    "listen_again",  # the item itself is in the history
    "because_you_liked",  # like an item (reason_item) of strong positive weight; a personal source found it
    "similar_to_recent",  # the same for an item of any positive weight
    "from_creator_you_play",  # of a creator among the user's strongest
    "new_release",  # published in the last NEW_DAYS days; found by its content alone
    "matches_your_taste",  # has a tag that is among the user's TASTE_TAGS strongest; a personal source found it
    "popular",  # found by popularity alone
    "explore",  # drawn at random, to learn whether it is liked: given by the selection, whatever else holds
)
CODE = {name: code for code, name in enumerate(REASONS)}
ALIKE = 0.499  # cosine of tags from which two items may be called alike: a half, with room for rounding
NEW_DAYS = 30
TASTE_TAGS = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reason may be drawn from: B slates of n items, histories of T."""

    item: np.ndarray  # (B, n) int32
    source: np.ndarray  # (B, n) uint32, bit s set when source s returned the item
    sources: tuple[str, ...]
    alike: np.ndarray  # (B, n, T) 0..1 likeness to each history item; 1 for the same creator


def explain(requests: Requests, evidence: Evidence, snapshot: Snapshot, liked: float) -> tuple[np.ndarray, np.ndarray]:
    """(B, n) int8 index into REASONS and (B, n) int32 history item it speaks of, or -1.

    `liked` is the event weight from which one may say "liked", see `liked_weight`.
    """
    item, history = evidence.item, requests.history
    known = {name for name in evidence.sources if name in retrievers() and retrievers()[name].personal}
    personal = evidence.source & _bits(evidence.sources, known) != 0
    at, like = _most_alike(evidence.alike, np.stack([history.weight >= liked, history.weight > 0]))
    holds = np.stack(
        [
            ((item[:, :, None] == history.item[:, None, :]) & (history.item != NONE)[:, None, :]).any(axis=2),
            personal & (like[0] >= ALIKE),
            personal & (like[1] >= ALIKE),
            _plays_creator(requests, item, snapshot),
            _is_new(requests, item, snapshot) & _only(evidence, {"content"}),
            personal & _has_favorite_tag(requests, item, snapshot),
            _only(evidence, {"popularity"}),
        ]
    )
    reason = np.where(holds.any(axis=0), holds.argmax(axis=0) + 1, 0)
    reason = np.where(item == NONE, 0, reason).astype(np.int8)
    because, similar = reason == CODE["because_you_liked"], reason == CODE["similar_to_recent"]
    spoken_of = history.item[np.arange(len(item))[:, None], np.where(because, at[0], at[1])]
    return reason, np.where(because | similar, spoken_of, NONE).astype(np.int32)


def liked_weight(events: EventsConfig) -> float:
    """The weight of a strong event: any positive one above the weakest, or that one where it is the only one."""
    given = {kind.weight for kind in events.types.values()}
    given |= {weight for kind in events.types.values() for _, weight in kind.weight_by_value}
    positive = sorted(weight for weight in given if weight > 0)
    return positive[min(1, len(positive) - 1)] if positive else np.inf


def _most_alike(alike: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each mask of `use` (2, B, T): (2, B, n) place of the most alike usable history item, and its likeness.

    The latest of equals; likeness -1 where nothing is usable.
    """
    likeness = np.where(use[:, :, None, :], alike, np.float32(-1))[..., ::-1]
    back = likeness.argmax(axis=3)
    return alike.shape[2] - 1 - back, likeness.max(axis=3)


def _bits(sources: tuple[str, ...], wanted: Set[str]) -> np.uint32:
    return np.uint32(sum(1 << s for s, name in enumerate(sources) if name in wanted))


def _only(evidence: Evidence, names: Set[str]) -> np.ndarray:
    wanted = _bits(evidence.sources, names)
    return (evidence.source & wanted != 0) & (evidence.source & ~wanted == 0)


def _plays_creator(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    profile = requests.profile
    played = np.where(profile.creator_weight > 0, profile.creator, NONE)
    creator = creators(snapshot, item)
    return ((creator[:, :, None] == played[:, None, :]) & (creator != NONE)[:, :, None]).any(axis=2)


def _has_favorite_tag(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    profile = requests.profile
    top = np.where(profile.tag_weight > 0, profile.tag, NONE)[:, :TASTE_TAGS]
    cell, tag, _ = tags_of(snapshot, item)
    hit = (tag[:, None] == top[cell // item.shape[1]]).any(axis=1)
    has = np.zeros(item.size, bool)
    has[cell[hit]] = True
    return has.reshape(item.shape)


def _is_new(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    published = snapshot.published[np.maximum(item, 0)]
    since = requests.time[:, None] - NEW_DAYS * DAY_US
    return (item != NONE) & (published != ALWAYS) & (published >= since) & (published <= requests.time[:, None])
