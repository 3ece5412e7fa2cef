"""Everybody asked at one moment, half of what teaches after drawn pauses; and windows on disk keep how long it was."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_world import write_tiny, write_tiny_config
from handsell.data import splits
from handsell.data.config import SplitConfig
from handsell.data.interactions import Interactions
from handsell.data.return_times import ReturnTimes, has_drawn_pause
from handsell.data.splits import AS_LOGGED, build_simultaneous_requests
from handsell.jobs.train import windows
from handsell.jobs.train.requests import build_requests_table, read_requests
from handsell.jobs.train.windows import REQUEST_SETS, SERVED, SIMULTANEOUS

DAY = splits.DAY_US
BY_TIME = SplitConfig(kind="by_time", ranker_days=2, validation_days=1, test_days=1)
LAST_K = SplitConfig(kind="leave_last_k", ranker_k=2, validation_k=1, test_k=2)


def log(rows: list[tuple[int, int, float, float]], n_items: int = 10) -> Interactions:
    """Events from (user, item, day, weight); weight 0 is an impression."""
    user, item, day, weight = (np.array(c) for c in zip(*sorted(rows, key=lambda r: (r[0], r[2])), strict=True))
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), np.zeros(len(rows), np.int8),
        (day * DAY).astype(np.int64), weight.astype(np.float32), int(user.max()) + 1, n_items,
    )  # fmt: skip


def cut(events: Interactions, split: SplitConfig) -> tuple[np.ndarray, tuple[int, ...], tuple[np.ndarray, ...]]:
    """Window of each event, where windows begin by time, and a slate of which nothing is known."""
    bounds = splits.Bounds.of(split, int(events.time.max()))
    unknown = np.zeros(len(events), np.int16), np.full(len(events), np.nan, np.float32)
    window = splits.assign_windows(events, events.weight != 0, split, bounds)
    return window, (0, bounds.ranker, bounds.validation, bounds.test), unknown


def ask_everybody(events: Interactions, split: SplitConfig, end_us: int, which: int = splits.TEST):
    window, begins, unknown = cut(events, split)
    return build_simultaneous_requests(events, events.weight != 0, unknown, window, split, begins[which], end_us, which)


def relevant(found: splits.WindowRequests, r: int) -> list[int]:
    return found.acted.row(r)[found.gain.row(r) > 0].tolist()


def random_log(rng: np.random.Generator, users: int = 15) -> Interactions:
    rows = [(u, int(rng.integers(10)), float(day), float(rng.choice([1, 1, -1, 0])))
            for u in range(users) for day in rng.random(rng.integers(1, 16)) * 9]  # fmt: skip
    return log(rows)


def test_by_time_has_one_request_per_user_at_the_start_of_the_window():
    events = log([(0, 1, 0.0, 1), (0, 2, 5.5, 1), (0, 3, 5.9, 1), (1, 5, 6.0, 1), (2, 4, 3.0, 1), (3, 6, 5.7, -1)])
    found = ask_everybody(events, BY_TIME, 9 * DAY)
    assert found.user.tolist() == [0, 1], "user 2 does nothing in the window, user 3 likes nothing"
    assert set(found.time.tolist()) == {6 * DAY + 1 - DAY} and set(found.away.tolist()) == {AS_LOGGED}
    assert [relevant(found, r) for r in range(2)] == [[2, 3], [5]], "two sessions, one request"


def test_leave_last_k_has_one_request_per_user_at_the_end_of_the_data():
    mine = [(0, i, float(i), 1.0) for i in range(9)]
    others = [(1, i, 0.1 * i, 1.0) for i in range(7)]
    found = ask_everybody(log([*mine, *others, (2, 0, 8.5, 1.0)]), LAST_K, end_us=10 * DAY)
    assert found.user.tolist() == [0, 1], "user 2 has too few events"
    assert found.time.tolist() == [7 * DAY, int(0.5 * DAY)], "what came before the window is the past"
    assert found.away.tolist() == [10 * DAY - 6 * DAY, 10 * DAY - int(0.4 * DAY)]
    assert [relevant(found, r) for r in range(2)] == [[7, 8], [5, 6]]


def test_a_user_who_starts_in_the_window_has_not_been_away():
    events = log([(0, 1, 1.0, 1), (0, 2, 2.0, 1), (1, 3, 2.0, 1)])
    window = np.array([0, splits.TEST, splits.TEST], np.int8)
    unknown = cut(events, LAST_K)[2]
    found = build_simultaneous_requests(events, np.ones(3, bool), unknown, window, LAST_K, 0, 5 * DAY, splits.TEST)
    assert found.away.tolist() == [4 * DAY, AS_LOGGED]


@pytest.mark.parametrize("which", [splits.RANKER, splits.VALIDATION, splits.TEST])
@pytest.mark.parametrize("split", [BY_TIME, LAST_K], ids=["by_time", "leave_last_k"])
def test_it_agrees_with_a_plain_loop_over_users(rng, split, which):
    for _ in range(10):
        events = random_log(rng)
        end, (window, begins, _) = int(events.time.max()) + 1, cut(events, split)
        expected = []
        for user in range(events.n_users):
            rows = np.flatnonzero(events.user == user)
            inside, before = rows[window[rows] == which], rows[window[rows] < which]
            total = {i: events.weight[inside][events.item[inside] == i].sum() for i in set(events.item[inside])}
            if liked := sorted(int(i) for i, weight in total.items() if weight > 0):
                if split is BY_TIME:
                    expected.append((user, begins[which], AS_LOGGED, liked))
                else:
                    expected.append((user, events.time[inside[0]], end - events.time[before[-1]], liked))
        found = ask_everybody(events, split, end, which)
        got = zip(found.user, found.time, found.away, (relevant(found, r) for r in range(len(found))), strict=True)
        assert list(got) == expected


def test_sampling_keeps_each_pause_with_its_request(rng):
    found = ask_everybody(log([(u, i, 0.1 * i + u / 1000, 1.0) for u in range(300) for i in range(7)]), LAST_K, 9 * DAY)
    assert len(set(found.away.tolist())) == 300
    kept = splits.sample(found, 0.4)
    assert 60 < len(kept) < 180
    assert (
        dict(zip(kept.user, kept.away, strict=True)).items() <= dict(zip(found.user, found.away, strict=True)).items()
    )


def test_windows_on_disk_keep_the_pause_and_every_outcome(rng, tmp_path):
    found = ask_everybody(random_log(rng), LAST_K, 9 * DAY)
    found = replace(found, away=np.where(np.arange(len(found)) % 2, found.away, AS_LOGGED))
    path = tmp_path / "served.parquet"
    pq.write_table(build_requests_table(found), path)
    for rows in (slice(None), slice(2, 5), slice(3, 3)):
        again = read_requests(path, rows)
        assert again.away.dtype == np.int64
        for name in ("user", "time", "away"):
            np.testing.assert_array_equal(getattr(again, name), getattr(found, name)[rows])
        for name in splits.WindowRequests.RAGGED:
            expected = getattr(found, name).take(rows)
            np.testing.assert_array_equal(getattr(again, name).values, expected.values)
            np.testing.assert_array_equal(getattr(again, name).offsets, expected.offsets)


@pytest.fixture(params=["by_time", "leave_last_k"])
def case(request, rng, tmp_path, monkeypatch):
    """A config, its log, and the windows of a cut in this process."""
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(windows, "run_tasks", lambda function, tasks, **_: [function(*task) for task in tasks])
    config = write_tiny_config(tmp_path, request.param)
    events = write_tiny(config, rng, users=60, n=3_000)
    return config, events, windows.cut_windows(config, tmp_path / "run"), tmp_path / "run"


def window_of(run, name):
    return read_requests(run / "windows" / f"{name}.parquet")


def test_half_of_the_ranker_and_validation_requests_have_drawn_pauses(case):
    config, events, counts, run = case
    seen = np.array([config.events.types[name].seen for name in config.events.names])
    gap_us = config.events.session_gap_us
    returns = ReturnTimes.of(events.where(seen[events.type]), gap_us, int(events.time.max()) + 1)
    drawn, total = 0, 0
    for name in ("ranker", "validation"):
        found = window_of(run, name)
        chosen, away = has_drawn_pause(found.user, found.time), returns.draw(found.user, found.time)
        expected = np.where(chosen, away, AS_LOGGED)
        np.testing.assert_array_equal(found.away, expected)
        drawn, total = drawn + (found.away > 0).sum(), total + len(found)
        assert len(found) == counts[f"{name}_kept"] == counts[name] + counts.get(name + SIMULTANEOUS, 0) > 40
    assert drawn / total == pytest.approx(0.5, abs=0.12)
    assert (window_of(run, "test").away == AS_LOGGED).all(), "the report's windows stay as they were"


def test_the_served_requests_are_one_per_user_of_the_test_window(case):
    config, _, counts, run = case
    served, test = window_of(run, SERVED), window_of(run, "test")
    assert len(set(served.user.tolist())) == len(served) == counts["served_kept"]
    assert set(test.user.tolist()) >= set(served.user.tolist()) and len(served) > 30
    if config.split.kind == "by_time":
        assert len(set(served.time.tolist())) == 1 and (served.away == AS_LOGGED).all()
    else:
        assert (served.away > 0).all()


def test_by_time_adds_simultaneous_requests_to_ranker_and_validation(case, tmp_path):
    config, events, counts, run = case
    if config.split.kind != "by_time":
        assert not any(name.endswith(SIMULTANEOUS) for name in counts), "there, every request is of that kind"
        return
    few = config.model_copy(update={"split": config.split.model_copy(update={"max_requests": 60})})
    windows.cut_windows(few, tmp_path / "few")
    for which, name in ((splits.RANKER, "ranker"), (splits.VALIDATION, "validation")):
        begin_us = cut(events, config.split)[1][which]
        at_once = window_of(run, name).time == begin_us
        assert 40 < at_once.sum() == counts[name + SIMULTANEOUS] == len(set(window_of(run, name).user[at_once]))
        half = (window_of(tmp_path / "few", name).time == begin_us).sum()
        assert 15 <= half <= 45, "each kind has an equal part"
        assert 40 <= len(window_of(tmp_path / "few", name)) <= 80


def test_served_requests_have_a_maximum(case, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "MAX_SERVED_REQUESTS", 15)
    config, _, counts, _ = case
    fewer = windows.cut_windows(config, tmp_path / "fewer")
    assert 0 < fewer["served_kept"] < 30 < fewer["served"]
    assert {**fewer, "served_kept": counts["served_kept"]} == counts


def test_request_keys_include_the_served_requests(case):
    config, _, _, run = case
    keys = pq.read_table(windows.write_request_keys(config))
    asked = [window_of(run, name) for name in REQUEST_SETS]
    for name in ("user", "time"):
        np.testing.assert_array_equal(keys[name].to_numpy(), np.concatenate([getattr(each, name) for each in asked]))


def test_by_time_mixes_session_starts_and_simultaneous_requests(case):
    config, events, _, run = case
    bounds = splits.Bounds.of(config.split, int(events.time.max()))
    for name, begin_us in (("ranker", bounds.ranker), ("validation", bounds.validation)):
        at_once = (window_of(run, name).time == begin_us).mean()
        assert (0.2 < at_once < 0.8) if config.split.kind == "by_time" else at_once < 0.1
    assert (window_of(run, "test").time == bounds.test).mean() < 0.1
