"""Requests for a preview of business rules: the latest of the impression log, or users of the catalog."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from handsell.catalog.snapshot import NEVER
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.events.merged_visitors import MergedVisitors
from handsell.events.store.interface import EventReader
from handsell.experiments.assignment import hash_units
from handsell.experiments.state import now_us, open_states
from handsell.experiments.traffic import Traffic, find_units
from handsell.serving.graph.loading import OpenedBundle


@dataclass(frozen=True)
class RecordedRequests:
    """N requests in order of time."""

    user_id: list[str | None]
    surface: np.ndarray  # (N,) int8
    time: np.ndarray  # (N,) int64 µs
    count: np.ndarray  # (N,) int16
    recorded: bool  # False: users of the catalog, as the log has no requests
    arms: np.ndarray  # (N,) object, each a tuple of "experiment=arm", as assigned now

    @property
    def unit(self) -> np.ndarray:
        """(N,) uint64 hashes of the users, for the own arms of a rules file."""
        return hash_units(self.user_id)


def read_recorded(reader: EventReader, opened: OpenedBundle, most: int) -> RecordedRequests | None:
    """Return the latest requests of the impression log on configured surfaces; None if there are none."""
    names = opened.config.surface_names
    shown = reader.read_impressions(max(reader.find_slate_offset(NEVER) - most, 0), most)
    columns = [shown[name] for name in ("offset", "time", "user_id", "surface", "arms")]
    slates = [(*row, len(list(items))) for row, items in groupby(zip(*columns, strict=True))]
    slates = sorted((slate for slate in slates if slate[3] in names), key=lambda slate: slate[1])
    if not slates:
        return None
    _, time, user_id, surface, arms, count = map(list, zip(*slates, strict=True))
    return RecordedRequests(
        user_id,
        np.array([names.index(name) for name in surface], np.int8),
        np.array(time, np.int64),
        np.array(count, np.int16),
        True,
        assign_arms(opened.config, reader, user_id, surface, [json.loads(text or "{}") for text in arms]),
    )


def sample_users(reader: EventReader, opened: OpenedBundle, most: int) -> RecordedRequests:
    """Return requests of users spread evenly over the catalog, on surface home at the present service time."""
    config = opened.config
    users = Vocabulary.load(Layout(config.state).catalog / "users")
    if not len(users):
        raise ConfigError("expected recorded requests or users of the catalog; got neither: run handsell data first")
    chosen = users.ids(np.unique(np.linspace(0, len(users) - 1, min(most, len(users))).astype(np.int32)))
    now, n = Clock.of(config.serving.clock, opened.manifest).now(), len(chosen)
    return RecordedRequests(
        list(chosen),
        np.full(n, config.surface_names.index("home"), np.int8),
        np.full(n, now),
        np.full(n, config.surfaces["home"].count, np.int16),
        False,
        assign_arms(config, reader, chosen, ["home"] * n, [{}] * n),
    )


def assign_arms(
    config: Config,
    reader: EventReader,
    user_ids: Sequence[str | None],
    surfaces: Sequence[str],
    logged: Sequence[dict[str, str]],
) -> np.ndarray:
    """Return the arms (N,) that the service gives these users now, each a tuple of "experiment=arm".

    Sessions are not known: an experiment whose units are not users has the arm of the impression, if any. Both arms of
    an interleaved experiment count.
    """
    traffic, now = Traffic(config, open_states(config).read()), now_us()
    merged, found = MergedVisitors.read(reader), np.empty(len(user_ids), object)
    for n, (user_id, surface, arms) in enumerate(zip(user_ids, surfaces, logged, strict=True)):
        given = traffic.assign(find_units(merged, user_id), surface, now)
        own = {name: arm for name, arm in arms.items() if name in config.experiments}
        own = {name: arm for name, arm in own.items() if config.experiments[name].unit != "user"}
        every = [*given.variant.arms, *given.variants[0].arms, *given.variants[1].arms]
        every += [f"{name}={arm}" for name, arm in own.items() if name not in given.arms]
        found[n] = tuple(dict.fromkeys(every))
    return found
