"""A service's log in the world: slates of a trained bundle that explores, and what listeners do with them.

Listeners look at a position with the world's examination probability and play what they see with its play chance, so
that the true value of any policy on the logged requests is known.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from handsell.catalog.vocabulary import Numbering, Vocabulary
from handsell.config import Config, load_config
from handsell.core.batches import NONE, Requests
from handsell.core.hashing import derive_seed
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, SECOND_US
from handsell.data.world.oracle import Oracle
from handsell.data.world.session_simulation import examination, play_chance
from handsell.events.store.interface import EventReader, EventWriter
from handsell.experiments.off_policy.candidate import SlatePolicy, load_policy
from handsell.experiments.off_policy.logged_impressions import LoggedSlates
from handsell.experiments.off_policy.probabilities import draw_slates
from handsell.experiments.off_policy.requests_as_of import build_requests_as_of

NEEDED = ("bundles", "catalog", "data", "features", "interactions", "truth")
SURFACE, METRIC, POSITIONS = "home", "listen", 10


def copy_deployment(trained: Config, folder: Path, exploration: dict[str, Any]) -> Config:
    """Copy a trained world to a state folder without events, with other settings of exploration."""
    state = trained.state
    os.environ["HANDSELL_HOME"] = str(folder)
    settings = trained.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    settings.setdefault("reranking", {})["exploration"] = exploration
    path = folder / "world.toml"
    path.write_text(tomli_w.dumps(settings))
    config = load_config(path)
    for name in NEEDED:
        shutil.copytree(state / name, config.state / name)
    return config


@dataclass(frozen=True)
class Listening:
    """What listeners of the world do with slates."""

    oracle: Oracle
    people: np.ndarray  # (U,) the world's number of each user of the catalog
    tracks: np.ndarray  # (I,) the world's number of each item
    listen: int  # code of the event type

    @classmethod
    def of(cls, config: Config, policy: SlatePolicy) -> Listening:
        layout = Layout(config.state)
        oracle, users = Oracle.load(layout.truth), Vocabulary.load(layout.catalog / "users")
        items = policy.stages.snapshot.items
        return cls(
            oracle,
            oracle.find_users(users.ids(np.arange(len(users)))),
            oracle.find_items(items.ids(np.arange(len(items)))),
            config.events.names.index(METRIC),
        )

    def compute_chances(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return the probability that the items (N, n) at positions 1 to n are played, (N, n)."""
        past = requests.history
        heard = np.where((past.type == self.listen) & (past.item != NONE), self.tracks[np.maximum(past.item, 0)], NONE)
        shown = np.where(items != NONE, self.tracks[np.maximum(items, 0)], NONE)
        want = self.oracle.true_utility(self.people[requests.user], requests.time, heard, past.time, shown)
        return examination(self.oracle.world)[: items.shape[1]] * play_chance(want)


def serve_days(
    config: Config, days: int, users: int, seed: int, reader: EventReader, writer: EventWriter
) -> tuple[LoggedSlates, Requests]:
    """Serve one slate a day to some users, and log slates and plays; return slates and requests of all days."""
    rng = np.random.default_rng(seed)
    policy = load_policy(config, "live", "live")
    listening, snapshot = Listening.of(config, policy), policy.stages.snapshot
    names = Vocabulary.load(Layout(config.state).catalog / "users")
    midnight = -(-policy.manifest.data_end_us // DAY_US) * DAY_US
    kept: list[LoggedSlates] = []
    for day in range(days):
        user = np.sort(rng.choice(len(names), users, replace=False)).astype(np.int32)
        time = np.sort(midnight + day * DAY_US + rng.integers(0, DAY_US, users))
        ids = np.array([uuid.UUID(bytes=rng.bytes(16)).hex for _ in user], object)
        slates = _blank_slates(ids, names.ids(user), time, policy.manifest.id, config)
        seeds = np.array([derive_seed(one) for one in ids], np.uint64)
        requests = build_requests_as_of(slates, seeds, snapshot, config, reader)
        drawn = draw_slates(policy.stages, requests, slates.item[:, :, None], seeds[:, None])
        again = draw_slates(policy.stages, requests, drawn.item[0][:, :, None], seeds[:, None])
        played = rng.random(drawn.item[0].shape) < listening.compute_chances(requests, drawn.item[0])
        slates = replace(slates, item=drawn.item[0], propensity=again.probability, reward=played.astype(float))
        _log(slates, snapshot.items, writer)
        kept.append(slates)
    slates = LoggedSlates(*(np.concatenate([getattr(one, f) for one in kept]) for f in LoggedSlates.__slots__))
    seeds = np.array([derive_seed(one) for one in slates.recommendation_id], np.uint64)
    return slates, build_requests_as_of(slates, seeds, snapshot, config, reader)


def _blank_slates(ids: np.ndarray, user_id: list[str], time: np.ndarray, bundle: str, config: Config) -> LoggedSlates:
    shape = (len(ids), POSITIONS)
    surface = np.full(len(ids), config.surface_names.index(SURFACE), np.int8)
    return LoggedSlates(
        ids, np.array(user_id, object), time, surface, np.full(len(ids), bundle, object),
        np.full(shape, NONE, np.int32), np.ones(shape), np.zeros(shape),
        np.zeros(len(ids), bool),
    )  # fmt: skip


def _log(slates: LoggedSlates, items: Numbering, writer: EventWriter) -> None:
    """Append slates as a gateway logs them, and the plays."""
    rows, events = [], []
    for b, user in enumerate(slates.user_id.tolist()):
        names, time = items.ids(slates.item[b]), int(slates.time[b])
        about = {"recommendation_id": slates.recommendation_id[b], "user_id": user, "surface": SURFACE}
        shown = {
            "item_id": names, "score": [0.0] * len(names), "propensity": slates.propensity[b].tolist(),
            "sources": [[]] * len(names),
        }  # fmt: skip
        row = {"gateway": "benchmark", "sequence": time, "time": time, "bundle": slates.bundle[b]}
        rows.append({**about, **row, "items": json.dumps(shown)})
        for k in np.flatnonzero(slates.reward[b]).tolist():
            event = {"item_id": names[k], "type": METRIC, "time": time + (k + 1) * SECOND_US, "position": k + 1}
            events.append({**about, **event})
    writer.append_slates(rows).result()
    writer.append(events).result()
