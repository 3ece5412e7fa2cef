"""The exposure of an item: the same as counted from all rows, wherever they are stored."""

import json
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events import item_exposure
from handsell.events.compaction import compact
from handsell.events.item_exposure import read_exposure
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter

FIRST = 20_000  # day
DAYS = 12
NOW = (FIRST + DAYS - 1) * DAY_US + 5


@pytest.fixture
def config(configured):
    return configured('name = "shop"\n[data]\nformat = "world"\n')


def draw_slates(rng, start, stop):
    slates = []
    for n in range(start, stop):
        ids = [f"i{i}" for i in rng.permutation(9)[: rng.integers(1, 6)]]
        sources = [list(rng.permutation(["als", "content", "popularity"])[: rng.integers(0, 3)]) for _ in ids]
        shown = {"item_id": ids, "score": [0.5] * len(ids), "propensity": [1.0] * len(ids), "sources": sources}
        slates.append({
            "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "user_id": "u", "bundle": "b",
            "time": int((FIRST + rng.integers(-3, DAYS)) * DAY_US), "surface": str(rng.choice(["home", "email"])),
            "items": json.dumps(shown),
        })  # fmt: skip
    return slates


def draw_events(rng, start, stop):
    return [
        {
            "user_id": "u", "item_id": f"i{rng.integers(9)}", "type": str(rng.choice(["play", "like"])),
            "time": int((FIRST + rng.integers(-3, DAYS)) * DAY_US), "event_id": f"e{n}",
            "recommendation_id": "r" if rng.random() < 0.4 else None,
        }
        for n in range(start, stop)
    ]  # fmt: skip


def write(config, slates, events):
    with SqliteWriter(Layout(config.state).event_log) as log:
        log.append_slates(slates).result()
        log.append(events).result()


def read(config, item_id):
    with closing(open_reader(config)) as reader:
        return read_exposure(reader, Layout(config.state).compacted, item_id, NOW, DAYS)


def test_exposure_is_that_of_all_rows_compacted_or_not(config, rng):
    slates, events = draw_slates(rng, 0, 300), draw_events(rng, 0, 300)
    write(config, slates[:200], events[:150])
    compact(config, lambda text: None)
    write(config, slates[200:], events[150:])
    found = read(config, "i3")
    days, positions, surfaces, sources = Counter(), [], Counter(), Counter()
    for slate in slates:
        shown = json.loads(slate["items"])
        if "i3" in shown["item_id"] and slate["time"] >= FIRST * DAY_US:
            at = shown["item_id"].index("i3")
            days[slate["time"] // DAY_US - FIRST] += 1
            positions.append(at + 1)
            surfaces[slate["surface"]] += 1
            sources.update(shown["sources"][at])
    assert found.first_day == FIRST and found.shown.tolist() == [days[day] for day in range(DAYS)]
    assert found.position == pytest.approx(np.mean(positions)) and found.impressions == len(positions) > 50
    assert (found.surfaces, found.sources) == (surfaces, sources) and not found.is_partial
    mine = [e for e in events if e["item_id"] == "i3" and e["time"] >= FIRST * DAY_US]
    assert found.count_events() == Counter(e["type"] for e in mine)
    assert found.recommended == Counter(e["type"] for e in mine if e["recommendation_id"]) and found.recommended["play"]
    plays = Counter(e["time"] // DAY_US - FIRST for e in mine if e["type"] == "play")
    assert found.events["play"].tolist() == [plays[day] for day in range(DAYS)]


def test_what_is_compacted_meanwhile_counts_once(config, rng, monkeypatch):
    write(config, draw_slates(rng, 0, 60), draw_events(rng, 0, 60))
    wanted = read(config, "i2")
    count = SqliteReader.count_item_events

    def compact_then_count(reader, *arguments):
        found = count(reader, *arguments)
        compact(config, lambda text: None)
        return found

    monkeypatch.setattr(SqliteReader, "count_item_events", compact_then_count)
    found = read(config, "i2")
    assert found.impressions == wanted.impressions > 0 and found.count_events() == wanted.count_events()


def test_an_item_that_was_never_shown_has_no_exposure(config):
    found = read(config, "nobody's")
    assert (found.impressions, found.position, found.surfaces, found.events) == (0, None, {}, {})


def test_what_is_left_out_of_a_large_store_is_said(config, rng, monkeypatch):
    write(config, draw_slates(rng, 0, 40), draw_events(rng, 0, 90))
    whole = read(config, "i1")
    assert sum(whole.count_events().values()) > 0
    monkeypatch.setattr(item_exposure, "MOST_SLATES", 10)
    part = read(config, "i1")
    assert part.is_partial and part.impressions < whole.impressions


def test_a_damaged_file_is_named(config, rng):
    write(config, draw_slates(rng, 0, 40), [])
    compact(config, lambda text: None)
    path = next((Layout(config.state).compacted / "impressions").rglob("date=1970-*/*.parquet"), None)
    path = path or max((Layout(config.state).compacted / "impressions").rglob("*.parquet"))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        read(config, "i1")
