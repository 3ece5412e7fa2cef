"""`handsell features CONFIG`: compute the sources of every feature view, and the item snapshot, from the numbered log.

Ray tasks fold the users of one part of the log, then merge the items of one bucket; they read and write Parquet. The
driver holds counts, the item table and one row of values per item, but no events.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import DataError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interaction_parts import list_parts
from handsell.features.item import get_untouched_values, list_item_features
from handsell.features.rows import Vocabularies
from handsell.features.views import build_views
from handsell.jobs.cluster import open_cluster, run_tasks
from handsell.jobs.features.item_rows import ItemTable, build_item_profile, build_user_profile, read_items, write_bucket
from handsell.jobs.features.user_rows import BEYOND_CAP, FeatureWork, save_attributes, write_part
from handsell.jobs.progress import Progress


def compute_feature_tables(
    config: Config, requests: Path | None = None, progress: Progress | None = None
) -> dict[str, int]:
    """Write layout.features/<view>/*.parquet and layout.snapshot; returns the number of rows by view.

    `requests`: a Parquet file or folder with columns user (number) and time (µs) for which rows are written, in
    addition to those of every session in the training windows. Raises DataError if there is no data yet.
    """
    require_distinct_columns(config)
    layout = Layout(config.state)
    parts, meta = _inputs(layout, config)
    names = Vocabularies.load(layout.catalog)
    work = _prepare(config, meta, requests)
    progress = progress or Progress(total=4)
    with progress.step("profiles", f"{len(names.users):,} users, {len(names.items):,} items") as note:
        items = read_items(config, names)
        save_attributes(items.facts, work.scratch)
        rows = _write_profiles(items, names, work)
        note.text = f"{sum(rows.values()):,} rows"
    with open_cluster(config):
        with progress.step("user rows", f"{meta['events']:,} events in {len(parts)} parts") as note:
            done = run_tasks(write_part, [(part, work) for part in parts], wait_s=config.jobs.wait_for_resources_s)
            rows |= {view: sum(d[view] for d in done) for view in done[0] if view not in ("events", BEYOND_CAP)}
            note.text = f"{rows['user_activity']:,} user rows"
            if beyond := sum(d[BEYOND_CAP] for d in done):
                note.text += (
                    f"; {beyond:,} users have seen more items than features.seen_cap = "
                    f"{config.features.seen_cap:,}: their oldest ones may be recommended again"
                )
        with progress.step("item activity", f"{work.buckets} buckets of items") as note:
            arguments = [(bucket, work, find_snapshot_day(meta)) for bucket in range(work.buckets)]
            buckets = run_tasks(write_bucket, arguments, wait_s=config.jobs.wait_for_resources_s)
            rows["item_activity"] = sum(count for count, _, _ in buckets)
            note.text = f"{rows['item_activity']:,} rows"
    with progress.step("snapshot") as note:
        snapshot = _snapshot(items, names, buckets, config, meta)
        _replace(layout.snapshot, snapshot.save)
        _publish(work, layout)
        note.text = f"version {snapshot.version}, {len(snapshot):,} items × {len(snapshot.value_names)} values"
    return rows


def find_snapshot_day(meta: dict) -> int:
    """Return the start (µs) of the day whose item values the snapshot holds; they cover the days before.

    This is the day after the last event, or the day of the last event if the data was read on that day: it was not
    over then. So no request is served on a day before the snapshot's, as training never sees a part of a day.
    """
    last, read = meta["last_us"] // DAY_US, meta.get("read_us", 0) // DAY_US
    return (last if last == read else last + 1) * DAY_US


def require_distinct_columns(config: Config) -> None:
    """Raise DataError if a column that [features] names has the name of another column of its view."""
    for view in build_views(config).values():
        if twice := sorted({name for name in view.names if view.names.count(name) > 1}):
            raise DataError(
                f"features: expected columns that {view.name} does not have, each once; got {', '.join(twice)}: "
                "map them to other names in [data.tables.*.columns]"
            )


def _inputs(layout: Layout, config: Config) -> tuple[list[Path], dict]:
    parts = list_parts(layout.interactions)
    if not parts or not layout.data_meta.is_file():
        raise DataError(
            f"expected numbered events in {layout.interactions}, got none: run `handsell data {config.source}`"
        )
    return parts, read_json(layout.data_meta, f"run `handsell data {config.source}` again")


def _prepare(config: Config, meta: dict, requests: Path | None) -> FeatureWork:
    """Make empty folders beside the live ones: readers see the old features until the new ones are complete."""
    layout = Layout(config.state)
    out, scratch = layout.state / "features.next", layout.state / "features.scratch"
    for folder in (out, scratch):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for view in build_views(config):
        (out / view).mkdir()
    return FeatureWork(config, meta, out, scratch, requests, buckets=config.jobs.partitions)


def _write_profiles(items: ItemTable, names: Vocabularies, work: FeatureWork) -> dict[str, int]:
    """Write profiles that are valid from the day of the first event: no request is earlier."""
    start = work.meta["first_us"] // DAY_US * DAY_US
    tables = {
        "item_profile": build_item_profile(items, names, work.config, start),
        "user_profile": build_user_profile(work.config, names, start),
    }
    for view, table in tables.items():
        pq.write_table(table, work.out / view / "part-00000.parquet")
    return {view: len(table) for view, table in tables.items()}


def _snapshot(
    items: ItemTable, names: Vocabularies, buckets: list[tuple[int, np.ndarray, np.ndarray]], config: Config, meta: dict
) -> Snapshot:
    activity = np.tile(get_untouched_values(), (len(names.items), 1))
    for _, touched, values in buckets:
        activity[touched] = values
    return Snapshot(
        version=_last_version(Layout(config.state)) + 1,
        as_of=find_snapshot_day(meta),
        items=names.items,
        creators=names.creators,
        tags=names.tags,
        creator=items.creator,
        item_tags=items.tags,
        published=items.published,
        expires=items.expires,
        available=items.available,
        values=np.concatenate([activity, items.columns], axis=1),
        value_names=list_item_features(config),
        metadata=items.metadata,
    )


def _last_version(layout: Layout) -> int:
    about = layout.snapshot / "snapshot.json"
    return int(json.loads(about.read_text(encoding="utf-8"))["version"]) if about.is_file() else 0


def _publish(work: FeatureWork, layout: Layout) -> None:
    _replace(layout.features, lambda path: work.out.rename(path))
    shutil.rmtree(work.scratch)


def _replace(path: Path, write) -> None:
    """Write a folder beside the old one, then rename it, so that a killed job leaves a complete folder."""
    fresh, old = path.with_name(path.name + ".fresh"), path.with_name(path.name + ".old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    write(fresh)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)
