"""Trimming a real store: the rows that readers still need stay, an interrupted run is continued, the file is reused."""

import json
import os
import time
from contextlib import closing, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backed_up_shop import build_event, build_slate
from handsell.bundles.manifest import Manifest
from handsell.bundles.store import BundleStore
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.events.compacted_files import list_ranges, read_range
from handsell.events.compaction import compact
from handsell.events.store.interface import AppendResult, CatalogChange
from handsell.events.store.opening import open_reader, open_writer
from handsell.features.storage.materialization import record_materialization
from handsell.jobs.cleaning import clean
from handsell.maintenance.compacted_retention import remove_old_ranges
from handsell.maintenance.files import DAY_S
from handsell.maintenance.trimming import TrimmedRows, find_limits, trim_store, trim_table

TOML = 'name = "shop"\n[retention]\nevents_days = 0\nimpressions_days = 1\nbundles = 1\n'
NOW_US = time.time_ns() // 1_000


def publish(config, n, events_through=0, changes_through=0, live=True):
    store = BundleStore(Layout(config.state).bundles)
    staging = store.new_dir()
    (staging / "report.json").write_text("{}")
    manifest = Manifest(
        config=config.name, created_us=1_750_000_000_000_000 + n * 1_000_000, data_start_us=1, data_end_us=2,
        feature_service="ranking_v1", features=(), sources=(), events_through=events_through,
        changes_through=changes_through,
    )  # fmt: skip
    bundle = store.publish(staging, manifest)
    if live:
        store.promote(bundle)
    return bundle


def write_meta(config, events_through, changes_through=0):
    path = Layout(config.state).data_meta
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"events_through": events_through, "changes_through": changes_through}))


@pytest.fixture
def shop(configured):
    """A deployment with 20 events, 6 slates (of which 3 are old) and 4 catalog changes."""
    config = configured(TOML)
    with closing(open_writer(config)) as log:
        log.append([build_event(n) for n in range(20)]).result()
        times = [NOW_US - 3 * 86_400_000_000] * 3 + [NOW_US] * 3
        log.append_slates([{**build_slate(n), "time": at} for n, at in enumerate(times)]).result()
        log.append_changes([CatalogChange("item", f"i{n}", "put", {}, n) for n in range(4)]).result()
    return config


def set_position(config, offset):
    """Let the stream processor read through an offset, of rows that `materialize` wrote through the same."""
    record_materialization(Layout(config.state), offset)
    with closing(open_writer(config)) as log:
        log.save_position("processor", offset).result()


def trim(config):
    with closing(open_writer(config)) as log:
        return trim_store(config, lambda method, *arguments: getattr(log, method)(*arguments).result())


def read_offsets(config):
    with closing(open_reader(config)) as reader:
        slates = [row[0] for row in reader.read_slates()]
        return reader.scan()["offset"], slates, [change.offset for change in reader.read_changes()]


def test_rows_are_trimmed_through_the_slowest_of_their_readers(shop):
    compact(shop, lambda _: None)
    write_meta(shop, 18, 4)
    publish(shop, 1, events_through=12, changes_through=3)
    publish(shop, 2, events_through=15, changes_through=4)
    set_position(shop, 14)
    assert trim(shop) == TrimmedRows(events=12, slates=3, catalog_changes=3, trimmed_keys=0)
    assert read_offsets(shop) == (list(range(13, 21)), [4, 5, 6], [4])
    assert trim(shop) == TrimmedRows(0, 0, 0, 0)


@pytest.mark.parametrize("missing", ["compaction", "bundle", "data", "processor", "materialize"])
def test_nothing_is_trimmed_before_each_reader_has_begun(shop, missing):
    if missing != "compaction":
        compact(shop, lambda _: None)
    if missing != "data":
        write_meta(shop, 20, 0)
    if missing != "bundle":
        publish(shop, 1, events_through=20)
    if missing != "processor":
        set_position(shop, 20)
    if missing == "materialize":
        record_materialization(Layout(shop.state), 0)
    before = read_offsets(shop)[0]
    trim(shop)
    left = read_offsets(shop)
    assert left[0] == (before if missing != "bundle" else []) and left[2] == [1, 2, 3, 4]
    assert left[1] == ([1, 2, 3, 4, 5, 6] if missing in ("compaction", "bundle") else [4, 5, 6])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_trimmed_is_compacted_and_in_every_row_that_a_request_begins_from(tmp_path_factory, data):
    """Random interleavings of appends, compaction, turns, rollbacks and trims, on a real store."""
    from handsell.config import load_config

    folder = tmp_path_factory.mktemp("trim")
    (folder / "shop.toml").write_text(TOML)
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    try:
        config, written = load_config(folder / "shop.toml"), 0
        compacted = rows_through = n = 0
        for step in data.draw(st.lists(st.sampled_from("apcmtrx"), min_size=4, max_size=14)):
            if step == "a":
                count = data.draw(st.integers(1, 5))
                with closing(open_writer(config)) as log:
                    log.append([build_event(written + i) for i in range(count)]).result()
                written += count
            elif step == "c":
                compact(config, lambda _: None)
                compacted = written
            elif step == "m":  # the turn's data step and `materialize`: rows begin after events_through
                rows_through = compacted
                write_meta(config, rows_through)
                set_position(config, rows_through)
            elif step == "p" and written:  # the stream processor goes on
                set_position(config, data.draw(st.integers(rows_through, written)))
                record_materialization(Layout(config.state), rows_through)
            elif step == "t":
                n += 1
                publish(config, n, events_through=rows_through, live=data.draw(st.booleans()))
            elif step == "r":
                with suppress(HandsellError):
                    BundleStore(Layout(config.state).bundles).rollback()
            else:
                trim(config)
                store = BundleStore(Layout(config.state).bundles)
                pointer = store.pointer()
                served = [b for b in (pointer.live, *pointer.previous[-1:]) if b]
                starts = [rows_through, *(store.show(bundle).events_through for bundle in served)]
                offsets = read_offsets(config)[0]
                needed = set(range(min(starts) + 1, written + 1))
                assert needed <= set(offsets), "a request reads a user's events after the row's offset"
                in_files = {
                    offset
                    for one in list_ranges(Layout(config.state).compacted, "events")
                    for offset in read_range(Layout(config.state).compacted, one)["offset"].to_pylist()
                }
                assert set(range(1, written + 1)) == set(offsets) | in_files, "nothing is lost"
    finally:
        del os.environ["HANDSELL_HOME"]


def test_an_interrupted_trim_is_continued(shop):
    compact(shop, lambda _: None)
    write_meta(shop, 20)
    publish(shop, 1, events_through=20)
    set_position(shop, 20)
    with closing(open_writer(shop)) as log:

        def write(method, table, through):
            if table == "slates":
                raise KeyboardInterrupt
            return getattr(log, method)(table, through).result()

        with pytest.raises(KeyboardInterrupt):
            trim_store(shop, write)
    assert read_offsets(shop)[:2] == ([], [1, 2, 3, 4, 5, 6])
    assert trim(shop).slates == 3


@pytest.mark.parametrize(
    ("first", "through", "ends"),
    [(1, 120_000, [50_001, 100_001, 120_000]), (7, 7, [7]), (7, 6, []), (1, 50_001, [50_001]), (1, 50_000, [50_000])],
)
def test_a_large_table_is_trimmed_in_several_calls(first, through, ends):
    calls = []

    def write(method, table, end):
        calls.append((method, table, end))
        return AppendResult(10, 0, ())

    assert trim_table(write, "events", first, through) == 10 * len(ends)
    assert calls == [("trim", "events", end) for end in ends]


def test_events_stay_for_days_after_their_compaction(configured, shop):
    config = configured(TOML.replace("events_days = 0", "events_days = 2"))
    compact(config, lambda _: None)
    (ranges,) = (Layout(config.state).compacted / "ranges" / "events").glob("*.json")
    write_meta(config, 20)
    publish(config, 1, events_through=20)
    set_position(config, 20)
    assert find_limits(config).events == 0
    os.utime(ranges, (time.time() - 3 * DAY_S,) * 2)
    assert find_limits(config).events == 20


def test_the_file_does_not_grow_where_as_much_is_trimmed_as_written(configured):
    config = configured(TOML + "keys_days = 0\n")
    publish(config, 1, events_through=10**9)
    sizes = []
    for cycle in range(5):
        with closing(open_writer(config)) as log:
            log.append([build_event(cycle * 3_000 + n) for n in range(3_000)]).result()
        compact(config, lambda _: None)
        write_meta(config, 10**9)
        set_position(config, 10**9)
        assert trim(config).events == 3_000
        sizes.append(Layout(config.state).event_log.stat().st_size)
    assert sizes[-1] <= 1.1 * sizes[1], sizes


def test_a_trimmed_event_that_is_sent_again_is_known_for_days(configured, shop):
    compact(shop, lambda _: None)
    write_meta(shop, 20)
    publish(shop, 1, events_through=20)
    set_position(shop, 20)
    assert trim(shop).trimmed_keys == 0
    with closing(open_writer(shop)) as log:
        assert log.append([build_event(3)]).result().duplicates == 1
    (ranges,) = (Layout(shop.state).compacted / "ranges" / "events").glob("*.json")
    os.utime(ranges, (time.time() - 31 * DAY_S,) * 2)
    assert trim(shop).trimmed_keys == 20
    with closing(open_writer(shop)) as log:
        assert log.append([build_event(3)]).result().accepted == 1


def test_old_compacted_ranges_are_removed_and_the_position_stays(configured, shop):
    config = configured(TOML + "compacted_days = 30\n")
    folder = Layout(config.state).compacted
    for n in range(3):
        with closing(open_writer(config)) as log:
            log.append([{**build_event(100 + n), "time": NOW_US}]).result()
        compact(config, lambda _: None)
    assert len(list_ranges(folder, "events")) == 3
    assert remove_old_ranges(config) == 0, "the first range has an event of today"
    assert remove_old_ranges(config, now=time.time() + 60 * DAY_S) >= 2
    (kept,) = list_ranges(folder, "events")
    assert kept.through == 23 and len(list((folder / "events").glob("*/*.parquet"))) == 1
    assert len(list_ranges(folder, "changes")) == 1
    compact(config, lambda _: None)
    assert list_ranges(folder, "events") == [kept], "what was removed is not compacted again"


def test_clean_removes_everything_old_in_one_run(shop):
    publish(shop, 0, live=False)
    compact(shop, lambda _: None)
    write_meta(shop, 20, 4)
    publish(shop, 1, events_through=20, changes_through=4)
    set_position(shop, 20)
    assert clean(shop) == (
        "removed 20 events, 3 slates, 4 catalog changes and 0 entries of the audit log from the event store, "
        "1 bundles, 0 training runs, 0 compacted ranges and 0 log files"
    )
