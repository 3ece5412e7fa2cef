"""A reason for every item: the most specific one that is true of this request."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from handsell.catalog.snapshot import ALWAYS, Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.kernels import compiled
from handsell.core.units import DAY_US
from handsell.data.config import EventsConfig
from handsell.reranking.similarity import gather_creators, gather_tags
from handsell.retrieval.config import retrievers

REASONS = (
    "recommended_for_you",  # no other reason holds
    "listen_again",  # the item itself is in the history
    "because_you_liked",  # similar to a strongly liked history item (reason_item); found by a personal source
    "similar_to_recent",  # similar to a history item of any positive weight; found by a personal source
    "from_creator_you_play",  # by one of the creators with the greatest weight for the user
    "new_release",  # published in the last NEW_DAYS days, and found by content only
    "matches_your_taste",  # has one of the user's TASTE_TAGS strongest tags, and found by a personal source
    "popular",  # found by popularity only
    "explore",  # drawn at random by exploration, whatever else holds
)
CODE = {name: code for code, name in enumerate(REASONS)}
LEAST_SIMILARITY = 0.499  # of two similar items: a cosine of one half, with room for rounding
NEW_DAYS = 30
TASTE_TAGS = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """Inputs from which the reasons of B slates of n items are derived; histories have T items."""

    item: np.ndarray  # (B, n) int32
    source: np.ndarray  # (B, n) uint32, bit s set when source s returned the item
    sources: tuple[str, ...]
    similarity: np.ndarray  # (B, n, T) 0..1, to each history item; 1 for the same creator


def choose_reasons(
    requests: Requests, evidence: Evidence, snapshot: Snapshot, liked: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (B, n) int8 index into REASONS and (B, n) int32 history item that the reason names, or -1.

    An item that was deleted or is not available is not named.
    `liked` is the event weight from which one may say "liked", see `find_liked_weight`.
    """
    item, history = evidence.item, requests.history
    if compiled is not None and item.size and history.item.size:
        return _choose_compiled(requests, evidence, snapshot, liked)
    personal = evidence.source & _find_personal(evidence.sources) != 0
    nameable = (history.item != NONE) & snapshot.available[np.maximum(history.item, 0)]
    use = np.stack([history.weight >= liked, history.weight > 0]) & nameable
    at, similarity = _find_most_similar(evidence.similarity, use)
    holds = np.stack(
        [
            ((item[:, :, None] == history.item[:, None, :]) & (history.item != NONE)[:, None, :]).any(axis=2),
            personal & (similarity[0] >= LEAST_SIMILARITY),
            personal & (similarity[1] >= LEAST_SIMILARITY),
            _plays_creator(requests, item, snapshot),
            _is_new(requests, item, snapshot) & _only(evidence, {"content"}),
            personal & _has_favorite_tag(requests, item, snapshot),
            _only(evidence, {"popularity"}),
        ]
    )
    reason = np.where(holds.any(axis=0), holds.argmax(axis=0) + 1, 0)
    reason = np.where(item == NONE, 0, reason).astype(np.int8)
    because, similar = reason == CODE["because_you_liked"], reason == CODE["similar_to_recent"]
    named = history.item[np.arange(len(item))[:, None], np.where(because, at[0], at[1])]
    return reason, np.where(because | similar, named, NONE).astype(np.int32)


def _choose_compiled(
    requests: Requests, evidence: Evidence, snapshot: Snapshot, liked: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `choose_reasons` returns, from the kernel."""
    item, history, profile = evidence.item, requests.history, requests.profile
    reason, named = np.empty(item.shape, np.int8), np.empty(item.shape, np.int32)
    only = [_bits(evidence.sources, {name}) for name in ("content", "popularity")]
    settings = [liked, LEAST_SIMILARITY, NEW_DAYS * DAY_US, ALWAYS, TASTE_TAGS]
    compiled.choose_reasons(
        np.ascontiguousarray(item, np.int32), evidence.source.astype(np.int64),
        np.ascontiguousarray(evidence.similarity, np.float32), np.ascontiguousarray(history.item, np.int32),
        np.ascontiguousarray(history.weight, np.float32), np.ascontiguousarray(requests.time, np.int64),
        np.ascontiguousarray(profile.creator, np.int32), np.ascontiguousarray(profile.creator_weight, np.float32),
        np.ascontiguousarray(profile.tag, np.int32), np.ascontiguousarray(profile.tag_weight, np.float32),
        np.ascontiguousarray(snapshot.available, bool), np.ascontiguousarray(snapshot.creator, np.int32),
        np.ascontiguousarray(snapshot.item_tags.offsets, np.int64),
        np.ascontiguousarray(snapshot.item_tags.values, np.int32), np.ascontiguousarray(snapshot.published, np.int64),
        np.array([_find_personal(evidence.sources), *only], np.int64), np.array(settings, np.float64), reason, named,
    )  # fmt: skip
    return reason, named


@lru_cache(64)
def _find_personal(sources: tuple[str, ...]) -> np.uint32:
    """Return the bits of the sources whose items depend on the user."""
    return _bits(sources, {name for name in sources if name in retrievers() and retrievers()[name].personal})


def find_liked_weight(events: EventsConfig) -> float:
    """Return the least weight of a strong event: the second lowest positive one, or the only one; inf without any."""
    weights = {kind.weight for kind in events.types.values()}
    weights |= {weight for kind in events.types.values() for _, weight in kind.weight_by_value}
    positive = sorted(weight for weight in weights if weight > 0)
    return positive[min(1, len(positive) - 1)] if positive else np.inf


def _find_most_similar(similarity: np.ndarray, use: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each mask of `use` (2, B, T) the most similar history item, (2, B, n) place, and its similarity.

    Of equal ones the latest; similarity -1 if the mask is empty.
    """
    usable = np.where(use[:, :, None, :], similarity, np.float32(-1))[..., ::-1]
    back = usable.argmax(axis=3)
    return similarity.shape[2] - 1 - back, usable.max(axis=3)


def _bits(sources: tuple[str, ...], wanted: Set[str]) -> np.uint32:
    return np.uint32(sum(1 << s for s, name in enumerate(sources) if name in wanted))


def _only(evidence: Evidence, names: Set[str]) -> np.ndarray:
    wanted = _bits(evidence.sources, names)
    return (evidence.source & wanted != 0) & (evidence.source & ~wanted == 0)


def _plays_creator(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    profile = requests.profile
    played = np.where(profile.creator_weight > 0, profile.creator, NONE)
    creator = gather_creators(snapshot, item)
    return ((creator[:, :, None] == played[:, None, :]) & (creator != NONE)[:, :, None]).any(axis=2)


def _has_favorite_tag(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    profile = requests.profile
    top = np.where(profile.tag_weight > 0, profile.tag, NONE)[:, :TASTE_TAGS]
    cell, tag, _ = gather_tags(snapshot, item)
    hit = (tag[:, None] == top[cell // item.shape[1]]).any(axis=1)
    has = np.zeros(item.size, bool)
    has[cell[hit]] = True
    return has.reshape(item.shape)


def _is_new(requests: Requests, item: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    published = snapshot.published[np.maximum(item, 0)]
    since = requests.time[:, None] - NEW_DAYS * DAY_US
    return (item != NONE) & (published != ALWAYS) & (published >= since) & (published <= requests.time[:, None])
