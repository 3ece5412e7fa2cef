"""List metrics by day, on slates whose metrics are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from handsell.cli import app
from handsell.core.batches import Ragged
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events.compaction import compact
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.analysis.list_history import measure_days
from handsell.testing.small_catalog import draw_snapshot

START = 20_600 * DAY_US  # 2026-05-27


def write_slates(config, *days):
    """`days`: by day, the slates as (user, surface, item numbers)."""
    slates = []
    for day, shown in enumerate(days):
        for user, surface, items in shown:
            n = len(slates)
            ids = [f"i{item}" for item in items]
            packed = {
                "item_id": ids, "score": [0.5] * len(ids), "propensity": [1.0] * len(ids), "sources": [[]] * len(ids)
            }  # fmt: skip
            slates.append(
                {
                    "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": START + day * DAY_US + n,
                    "user_id": user, "surface": surface, "bundle": "b", "items": json.dumps(packed),
                }
            )  # fmt: skip
    with SqliteWriter(Layout(config.state).event_log) as store:
        store.append_slates(slates).result()


@pytest.fixture
def shop(configured, rng):
    """Ten items, even ones tagged 0 and odd ones 1; item 0 is of creator 0, who is large, the others of small ones."""
    config = configured('name = "shop"\n[surfaces.home]\n[surfaces.email]\n')
    drawn = draw_snapshot(rng, 10)
    tags = Ragged(np.arange(10, dtype=np.int32) % 2, np.arange(11))
    popularity = np.full((10, 1), 1, np.float32)
    popularity[0] = 100
    replace(
        drawn, creator=np.arange(10, dtype=np.int32), item_tags=tags, available=np.ones(10, bool), values=popularity,
        value_names=("item_positives_total",),
    ).save(Layout(config.state).snapshot)  # fmt: skip
    return config


def test_each_day_has_the_metrics_of_its_slates(shop):
    write_slates(
        shop,
        [("u1", "home", [0, 2]), ("u1", "home", [0, 2]), ("u2", "home", [0, 1])],
        [("u1", "home", [4, 5, 6, 7])],
    )
    first, second = measure_days(shop)
    assert (first.day, second.day) == ("2026-05-27", "2026-05-28")
    assert (first.slates, first.people, first.items_per_slate) == (3, 2, 2.0)
    assert first.coverage == pytest.approx(0.3) and second.coverage == pytest.approx(0.4)
    assert first.repeat_rate == pytest.approx(1.0)  # of the only slate that has one before it
    assert first.diversity == pytest.approx(1 / 3)  # one of three slates has two tags
    assert second.diversity == pytest.approx(2 / 3)  # four of its six pairs differ
    assert first.exposure["large"] == pytest.approx(0.5) and second.exposure["small"] > 0
    assert sum(second.exposure.values()) == pytest.approx(1.0)
    assert first.novelty < second.novelty  # item 0 is the popular one
    assert first.gini > second.gini


def test_a_surface_and_the_number_of_days_narrow_the_slates(shop):
    write_slates(shop, [("u1", "home", [0]), ("u1", "email", [1, 2])], [("u1", "email", [3])])
    assert [day.slates for day in measure_days(shop, surface="email")] == [1, 1]
    assert [day.day for day in measure_days(shop, days=1)] == ["2026-05-28"]
    with pytest.raises(ConfigError, match="expected one of home, email, got 'push'"):
        measure_days(shop, surface="push")


def test_compacted_days_are_read_as_far_back_as_asked(shop):
    write_slates(shop, [("u1", "home", [0])], [], [("u1", "home", [1])], [("u1", "home", [2])])
    before = measure_days(shop)
    compact(shop, lambda _: None)
    assert repr(measure_days(shop)) == repr(before) and [day.day[-2:] for day in before] == ["27", "29", "30"]
    (first, *_) = sorted(Layout(shop.state).compacted.glob("impressions/date=*/*.parquet"))
    first.unlink()
    assert [day.day[-2:] for day in measure_days(shop, days=3)] == ["29", "30"]  # the file of the 27th is not opened


def test_ids_that_the_catalog_lacks_and_people_without_an_id_are_no_error(shop):
    write_slates(shop, [(None, "home", [0, 99]), (None, "home", [0, 99])])
    (day,) = measure_days(shop)
    assert day.people == 0 and day.coverage == pytest.approx(0.1) and np.isnan(day.repeat_rate)


def test_without_slates_there_are_no_days_and_without_a_catalog_only_counts(configured):
    config = configured('name = "shop"\n')
    with SqliteWriter(Layout(config.state).event_log):
        pass
    assert measure_days(config) == []
    write_slates(config, [("u1", "home", [0, 1])])
    (day,) = measure_days(config)
    assert day.slates == 1 and np.isnan(day.coverage) and day.exposure == {}


def test_the_command_prints_a_table_or_json(shop):
    write_slates(shop, [("u1", "home", [0, 1])])
    said = CliRunner().invoke(app, ["quality", str(shop.source)])
    assert said.exit_code == 0 and "2026-05-27" in said.output and "small creators" in said.output
    values = json.loads(CliRunner().invoke(app, ["quality", str(shop.source), "--json"]).output)
    assert values[0]["slates"] == 1 and values[0]["repeat_rate"] is None
