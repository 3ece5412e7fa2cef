"""Append events and slates through the running service's writer: `python -m benchmarks.soak.feeder`, settings on stdin.

Runs in a process of its own, which connects to the service's Ray cluster. The gateway is left out: it would spend most
of the soak on parsing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.soak.feed import Feed
from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.clock import Clock
from handsell.core.paths import Layout
from handsell.jobs.cluster import connect
from handsell.jobs.store_writer import open_store_writer

EVENT_BATCH, SLATE_BATCH, SHOWN = 5_000, 500, 10


def main() -> None:
    feed = Feed(**json.load(sys.stdin))
    config = load_config(feed.config)
    with connect(), open_store_writer(config) as write:
        for events in draw_events(config, feed):
            write("append", events)
        for slates in draw_slates(config, feed):
            write("append_slates", slates)


def draw_events(config: Config, feed: Feed) -> Iterator[list[dict]]:
    """Yield batches of events of random users and items, at the service's present time."""
    rng, layout = np.random.default_rng(feed.first), Layout(config.state)
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    kinds = [name for name, kind in config.events.types.items() if kind.seen]
    clock = _find_clock(config)
    for begin in range(0, feed.events, EVENT_BATCH):
        count, now = min(EVENT_BATCH, feed.events - begin), clock.now()
        user, item = users.ids(rng.integers(0, len(users), count)), items.ids(rng.zipf(1.3, count) % len(items))
        kind = rng.integers(0, len(kinds), count)
        yield [
            {
                "event_id": f"soak-{feed.first + begin + n}", "user_id": user[n], "item_id": item[n],
                "type": kinds[kind[n]], "time": now - count + n, "surface": "home",
            }
            for n in range(count)
        ]  # fmt: skip


def draw_slates(config: Config, feed: Feed) -> Iterator[list[dict]]:
    """Yield batches of slates of SHOWN items each."""
    rng, layout = np.random.default_rng(feed.first + 1), Layout(config.state)
    users, items = (Vocabulary.load(layout.catalog / name) for name in ("users", "items"))
    bundle, clock = BundleStore(layout.bundles).live(), _find_clock(config)
    for begin in range(0, feed.slates, SLATE_BATCH):
        count, now = min(SLATE_BATCH, feed.slates - begin), clock.now()
        user = users.ids(rng.integers(0, len(users), count))
        shown = rng.integers(0, len(items), (count, SHOWN))
        same = {"score": [0.5] * SHOWN, "propensity": [1.0] * SHOWN, "sources": [["popularity"]] * SHOWN}
        yield [
            {
                "recommendation_id": f"soak-{feed.first + begin + n}", "gateway": f"soak-{feed.first}",
                "sequence": begin + n + 1, "time": now, "user_id": user[n], "surface": "home", "bundle": bundle,
                "items": json.dumps({"item_id": list(items.ids(shown[n])), **same}),
            }
            for n in range(count)
        ]  # fmt: skip


def _find_clock(config: Config) -> Clock:
    store = open_bundles(config)
    return Clock.of(config.serving.clock, store.show(str(store.live())))


if __name__ == "__main__":
    main()
