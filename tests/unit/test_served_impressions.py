"""Slates that the service served become shown items of training requests, joined by user, time and slate."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_world import write_tiny, write_tiny_config
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.interactions import Interactions
from handsell.data.splits import Bounds
from handsell.events.compacted_files import build_table, write_range
from handsell.events.store.rows import EXPERIMENT_FIELDS
from handsell.jobs.train import windows
from handsell.jobs.train.impressions import add_served_items, served_type
from handsell.jobs.train.requests import read_requests


@pytest.fixture(params=["negatives", "slates"])
def case(request, rng, tmp_path, monkeypatch):
    """A config, its log, and the bounds of its windows."""
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(windows, "run_tasks", lambda function, tasks, **_: [function(*task) for task in tasks])
    config = write_tiny_config(tmp_path)
    config = config.model_copy(
        update={"ranking": config.ranking.model_copy(update={"impressions": request.param, "outcome_hours": 6.0})}
    )
    events = write_tiny(config, rng, users=60, n=3_000)
    return config, events, Bounds.of(config.split, int(events.time.max()))


def serve(config, slates: list[tuple[str, int, str, list[str]]], surface: str = "home") -> None:
    """Compact slates (user id, time, recommendation id, item ids) as the store has them."""
    names = ("gateway", "sequence", "bundle", "score", "sources", "rules", *EXPERIMENT_FIELDS, "teams")
    rows = [
        {
            "recommendation_id": name, "time": time, "user_id": user, "surface": surface, "item_id": item,
            "position": place, "propensity": 0.5, "offset": offset, **dict.fromkeys(names),
        }
        for offset, (user, time, name, items) in enumerate(slates, start=1)
        for place, item in enumerate(items, start=1)
    ]  # fmt: skip
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    folder = config.state / "compacted"
    write_range(folder, "impressions", 1, len(slates), build_table("impressions", columns))


def find_interaction(events: Interactions, bounds: Bounds) -> int:
    """A user's liked item in the ranker window, hours after the event before."""
    before = np.diff(events.time, prepend=0) > 3 * HOUR_US
    ranker = (events.time >= bounds.ranker + DAY_US) & (events.time < bounds.validation - DAY_US)
    return int(np.flatnonzero(before & ranker & (events.weight > 0) & (np.diff(events.user, prepend=-1) == 0))[0])


def cut(config, folder):
    counts = windows.cut_windows(config, folder)
    return counts, {name: read_requests(folder / "windows" / f"{name}.parquet") for name in ("ranker", "validation")}


def test_a_slate_before_an_interaction_is_a_request_with_its_ignored_items(case, tmp_path):
    config, events, bounds = case
    row = find_interaction(events, bounds)
    user, item, time = int(events.user[row]), int(events.item[row]), int(events.time[row]) - 5 * 60_000_000
    others = [i for i in range(30) if i != item][:2]
    items = [others[0], item, others[1]]
    serve(config, [(f"u{user}", time, "r1", [f"i{i}" for i in items]), (f"u{user}", time, "r2", ["new"])])
    _, found = cut(config, tmp_path / "run")
    ranker = found["ranker"]
    (r,) = np.flatnonzero((ranker.user == user) & (ranker.time == time))
    assert ranker.shown.row(r).tolist() == items, "items that have no number are left out"
    assert ranker.position.row(r).tolist() == [1, 2, 3] and ranker.propensity.row(r).tolist() == [0.5] * 3
    assert item in ranker.acted.row(r)[ranker.gain.row(r) > 0]
    assert (found["validation"].user != user).any() and not (found["validation"].time == time).any()


def test_slates_of_unknown_users_and_of_earlier_days_change_nothing(case):
    config, events, bounds = case
    row = find_interaction(events, bounds)
    user, time = f"u{events.user[row]}", int(events.time[row]) - HOUR_US // 10
    table = pq.read_table(config.state / "interactions" / "part-00000.parquet")
    early = bounds.ranker - DAY_US
    serve(config, [("nobody", time, "r1", ["i1"]), (None, time, "r2", ["i1"]), (user, early, "r3", ["i1"])])
    assert add_served_items(table, config, bounds.ranker).equals(table)


def test_slates_of_other_surfaces_may_not_have_been_seen(case):
    config, events, bounds = case
    row = find_interaction(events, bounds)
    table = pq.read_table(config.state / "interactions" / "part-00000.parquet")
    slate = (f"u{events.user[row]}", int(events.time[row]) - HOUR_US // 10, "r1", ["i1"])
    serve(config, [slate], surface="email")
    assert add_served_items(table, config, bounds.ranker).equals(table)


def test_a_shown_item_that_the_client_reported_too_counts_once(case):
    config, _, bounds = case
    table = pq.read_table(config.state / "interactions" / "part-00000.parquet")
    user, time = int(table["user"][0].as_py()), int(bounds.ranker + HOUR_US)
    serve(config, [(f"u{user}", time, "r1", ["i1", "i2"])])
    (reported,) = [config.events.names.index("impression")]
    row = {"user": user, "item": 1, "type": reported, "time": time, "weight": 0.0, "recommendation_id": "r1"}
    acted = {**row, "type": config.events.names.index("listen"), "time": time + 1, "weight": 1.0}
    own = table.schema.empty_table()
    for each in (row, acted):
        own = own.from_pylist([*own.to_pylist(), {**dict.fromkeys(table.column_names), **each}], schema=table.schema)
    found = add_served_items(own, config, bounds.ranker)
    kinds = found["type"].to_pylist()
    assert kinds == [acted["type"], served_type(config), served_type(config)], "the interaction stays"


def scramble_after(config, t: int, rng) -> None:
    """Shuffle items, types and weights of the interactions from t on, in every part."""
    for path in sorted((config.state / "interactions").glob("part-*.parquet")):
        table = pq.read_table(path)
        later = np.flatnonzero(table["time"].to_numpy() >= t)
        take = np.arange(len(table))
        take[later] = rng.permutation(later)
        for name in ("item", "type", "weight"):
            at = table.column_names.index(name)
            table = table.set_column(at, table.schema.field(name), table[name].take(take))
        pq.write_table(table, path)


def draw_slates(events: Interactions, rng, begin: int, end: int) -> list[tuple[str, int, str, list[str]]]:
    """A slate shortly before each of some interactions in [begin, end)."""
    rows = rng.permutation(np.flatnonzero((events.time >= begin + HOUR_US) & (events.time < end)))[:80]
    found = []
    for row in np.sort(rows).tolist():
        items = [f"i{i}" for i in rng.permutation(30)[:5]]
        found.append((f"u{events.user[row]}", int(events.time[row]) - HOUR_US // 4, f"r{row}", items))
    return found


def test_what_happens_after_a_window_reaches_neither_its_examples_nor_the_retrievers(case, tmp_path, rng):
    config, events, bounds = case
    mine = draw_slates(events, rng, bounds.ranker, bounds.validation)
    later = draw_slates(events, rng, bounds.validation, int(events.time.max()))
    found = []
    for name, more in (("as_it_was", later), ("scrambled", [(u, t, r, i[::-1]) for u, t, r, i in later[::2]])):
        serve(config, mine + more)
        found.append(cut(config, tmp_path / name)[1]["ranker"])
        for path in (config.state / "compacted").rglob("*.json"):
            path.unlink()
        scramble_after(config, bounds.validation, rng)
    one, other = found
    assert len(one) > 60 and one.shown.lengths.sum() > 100
    for name in ("user", "time"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("acted", "gain", "shown", "position", "propensity"):
        np.testing.assert_array_equal(getattr(one, name).values, getattr(other, name).values)
    for path in (tmp_path / "as_it_was" / "fit").glob("*.parquet"):
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "scrambled" / "fit" / path.name))
