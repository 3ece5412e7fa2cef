"""The report says where the events of a training come from, and which users and items are new."""

import json

import pytest

from handsell.bundles.manifest import Manifest
from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from handsell.jobs.train.origins import count_origins, describe_origins

SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events"
[events.types]
view = { weight = 1.0 }
"""
META = {
    "events": 110, "origins": {"source": 100, "event_store": 15, "both": 5}, "duplicates": 7, "users": 12, "items": 30,
}  # fmt: skip


@pytest.fixture
def config(configured):
    config = configured(SHOP)
    meta = Layout(config.state).data_meta
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps(META))
    return config


def write_coverage(run, ignored: int) -> None:
    folder = run / "examples" / "ranker"
    folder.mkdir(parents=True)
    counts = {"requests": 9, "groups": 8, "positives": 7, "found": 6, "ignored": ignored}
    (folder / "000000000.coverage.json").write_text(json.dumps(counts))


def promote(config, report: str) -> None:
    store = BundleStore(Layout(config.state).bundles)
    folder = store.new_dir()
    (folder / "report.json").write_text(report)
    about = Manifest(
        config="shop", created_us=1, data_start_us=0, data_end_us=1, feature_service="s", features=(), sources=()
    )
    store.promote(store.publish(folder, about))


def test_events_count_by_origin_and_those_in_both_once(config, tmp_path):
    write_coverage(tmp_path, ignored=4)
    counts = count_origins(config, tmp_path)
    assert (counts["source_events"], counts["stored_events"], counts["events_in_both"]) == (100, 15, 5)
    assert counts["events"] == 110 and counts["duplicates"] == 7 and counts["ignored_items_as_negatives"] == 4
    assert "new_users" not in counts, "there is no bundle before the first"
    assert describe_origins(counts) == (
        "The data has 110 events: 100 of the source and 15 of the event store, of which 5 are in both."
    )


def test_users_and_items_since_the_live_bundle_are_new(config, tmp_path):
    promote(config, json.dumps({"data": {"users": 10, "items": 29}}))
    counts = count_origins(config, tmp_path) | {"shown_items": 6, "served_items": 2, "ignored_items_as_negatives": 3}
    assert (counts["new_users"], counts["new_items"]) == (2, 1)
    text = describe_origins(counts)
    assert "2 users and 1 items are new" in text
    assert "6 items were shown" in text and "2 of them according to the event store" in text and "from 3 that" in text


@pytest.mark.parametrize("report", ["{", "{}", '{"data": {"users": 10}}'])
def test_a_live_bundle_of_an_earlier_version_says_less(config, tmp_path, report):
    promote(config, report)
    counts = count_origins(config, tmp_path)
    assert "new_items" not in counts and describe_origins(counts).startswith("The data has 110 events")
