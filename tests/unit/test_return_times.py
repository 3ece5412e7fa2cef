"""Pauses of the data: counted, drawn, the same in every run; and which features they change."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from feature_world import START, write_tiny_config
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE
from handsell.core.units import DAY_US, HOUR_US, MINUTE_US
from handsell.data.interactions import Interactions
from handsell.data.return_times import BINS, BINS_PER_DOUBLING, SHORTEST_US, ReturnTimes, has_drawn_pause
from handsell.data.splits import AS_LOGGED
from handsell.events.fold import fold
from handsell.events.states import MAX_AWAY_DAYS, Events, FoldRules, ItemAttributes
from handsell.features.item import list_item_features
from handsell.features.matrix import SnapshotValues, build_matrix, list_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.rows import Vocabularies, build_user_rows
from handsell.testing.small_catalog import draw_candidates, draw_snapshot

GAP_US = 30 * MINUTE_US
END = 20_000 * DAY_US


def log(*times_of_users: list[int]) -> Interactions:
    """One user per list of times, µs."""
    user = np.repeat(np.arange(len(times_of_users)), [len(times) for times in times_of_users])
    time = np.array([time for times in times_of_users for time in times], np.int64)
    zeros = np.zeros(len(time))
    return Interactions(
        user.astype(np.int32), zeros.astype(np.int32), zeros.astype(np.int8), time, zeros.astype(np.float32),
        len(times_of_users), 1,
    )  # fmt: skip


def bin_of(pause_us: float) -> int:
    return int(np.log2(pause_us / SHORTEST_US) * BINS_PER_DOUBLING)


def planted(ended: dict[int, int], lasting: dict[int, int]) -> ReturnTimes:
    """Pauses of these lengths, µs → how many: those that ended, and those that last when the data ends."""
    counts = np.zeros((2, BINS), np.int64)
    for row, lengths in zip(counts, (ended, lasting), strict=True):
        for pause_us, count in lengths.items():
            row[bin_of(pause_us)] += count
    return ReturnTimes(counts)


def requests(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n, dtype=np.int32), END + np.arange(n) * 1_000_003


def test_pauses_within_a_session_do_not_count_and_each_users_last_one_is_open():
    times = [END - 9 * DAY_US, END - 9 * DAY_US + GAP_US, END - 8 * DAY_US + GAP_US]  # in the session, then a day
    found = ReturnTimes.of(log(times, [END - 2 * HOUR_US], []), GAP_US, END)
    expected = planted({DAY_US: 1}, {8 * DAY_US - GAP_US: 1, 2 * HOUR_US: 1})
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_a_pause_falls_into_the_bin_that_starts_at_or_before_it(rng):
    pauses = (SHORTEST_US * np.exp2(rng.uniform(0, 22, 500))).astype(np.int64)
    counts = ReturnTimes.of(log(*([END - pause] for pause in pauses)), GAP_US, END).counts[1]
    np.testing.assert_array_equal(counts, np.bincount([bin_of(pause) for pause in pauses], minlength=BINS))


def test_the_shortest_and_the_longest_pauses_are_kept_at_the_ends():
    found = ReturnTimes.of(log([END - 1], [END + 5], [END - 40 * 366 * DAY_US]), GAP_US, END)
    assert found.counts[1, 0] == 2 and found.counts[1, -1] == 1 and found.counts.sum() == 3


def test_the_parts_of_a_log_add_up_to_the_whole(rng):
    users = [np.sort(END - rng.integers(1, 300 * DAY_US, rng.integers(1, 30))).tolist() for _ in range(20)]
    whole = ReturnTimes.of(log(*users), GAP_US, END)
    parts = [ReturnTimes.of(log(*users[p::3]), GAP_US, END) for p in range(3)]
    np.testing.assert_array_equal((parts[0] + parts[1] + parts[2]).counts, whole.counts)
    assert whole.counts[1].sum() == 20


def test_half_is_drawn_from_each_distribution_however_many_pauses_it_has():
    away = planted({HOUR_US: 10_000}, {30 * DAY_US: 3}).draw(*requests(4_000))
    short = away < 2 * HOUR_US
    assert short.mean() == pytest.approx(0.5, abs=0.03)
    width = 2 ** (1 / BINS_PER_DOUBLING)
    for some, planted_us in ((away[short], HOUR_US), (away[~short], 30 * DAY_US)):
        assert some.min() >= planted_us / width and some.max() <= planted_us * width


def test_drawn_pauses_have_the_lengths_of_the_data():
    ended = {HOUR_US: 200, 5 * HOUR_US: 300, 2 * DAY_US: 400, 30 * DAY_US: 100}
    counts = planted(ended, {}).counts[0]
    away = planted(ended, {}).draw(*requests(20_000))
    found = np.bincount([bin_of(pause) for pause in away], minlength=BINS) / len(away)
    np.testing.assert_allclose(found, counts / counts.sum(), atol=0.012)


@pytest.mark.parametrize("row", [0, 1])
def test_where_one_distribution_is_empty_all_are_drawn_from_the_other(row):
    lengths = [{}, {}]
    lengths[row] = {7 * DAY_US: 4}
    assert {bin_of(pause) for pause in planted(*lengths).draw(*requests(500))} == {bin_of(7 * DAY_US)}


def test_without_any_pause_the_drawn_one_is_a_minute():
    nothing = ReturnTimes.of(log(), GAP_US, END)
    assert not nothing.counts.any()
    assert nothing.draw(*requests(5)).tolist() == [MINUTE_US] * 5


def test_a_draw_depends_on_its_request_only(rng):
    returns = planted({HOUR_US: 10, 2 * DAY_US: 10}, {30 * DAY_US: 5})
    user, time = requests(300)
    whole, order = returns.draw(user, time), rng.permutation(300)
    np.testing.assert_array_equal(returns.draw(user[order], time[order]), whole[order])
    np.testing.assert_array_equal(returns.draw(user[7:8], time[7:8]), whole[7:8])
    assert len(set(returns.draw(np.full(300, 4), time))) > 250, "a user's requests are drawn apart"
    assert whole.dtype == np.int64 and (whole >= SHORTEST_US).all()


def test_half_of_the_requests_are_drawn_and_their_pauses_are_no_longer_than_the_others():
    user, time = requests(6_000)
    chosen = has_drawn_pause(user, time)
    assert chosen.mean() == pytest.approx(0.5, abs=0.02)
    away = np.log2(planted({HOUR_US: 1, 30 * DAY_US: 1}, {DAY_US: 1}).draw(user, time))
    assert abs(np.corrcoef(chosen, away)[0, 1]) < 0.04


READS_THE_PAUSE = {"user_days_since_last", "hours_since_item", "hours_since_creator"}
NOW = START + 45 * DAY_US


@pytest.fixture
def build_requests(rng, tmp_path):
    """Function from pauses (5,) µs to requests and ranker features by name (5, K); user 4 has no events."""
    config, shelf = write_tiny_config(tmp_path), draw_snapshot(rng, items=40, creators=6, tags=5)
    value_names = list_item_features(config)
    shelf = replace(shelf, values=rng.random((40, len(value_names))), value_names=value_names)
    rules, kind = FoldRules.of(config), rng.integers(0, 3, 150)
    time = np.sort(rng.choice(40 * DAY_US, 150, replace=False)) + START
    log = Events.of(rng.integers(0, 4, 150), rng.integers(0, 40, 150), kind, time, np.array([0, 1, -0.5])[kind])
    states = fold(rules.empty_states(5), log, ItemAttributes(shelf.creator, shelf.item_tags), rules)
    names = Vocabularies(Vocabulary.of(f"u{i}" for i in range(5)), shelf.items, shelf.creators, shelf.tags)
    tables = build_user_rows(states, np.arange(5), names, config)
    rows = {c: t[c].combine_chunks() for t in tables.values() for c in t.column_names}
    rows |= {"user_number": pa.array(range(5)), "age": pa.array([20.0] * 5), "country": pa.array(["de"] * 5)}
    rows |= {"adult": pa.array([True] * 5), "languages": pa.array([["de"]] * 5)}
    found = draw_candidates(rng, shelf, rows=5, k=40)  # the whole catalog

    def ask(away):
        requests = build_requests_from_rows(rows, shelf, config, np.full(5, NOW), np.zeros(5, np.int8), away=away)
        x = build_matrix(requests, found, SnapshotValues(shelf), shelf, config)
        return requests, dict(zip(list_features(config, found.sources), np.moveaxis(x, 2, 0), strict=True))

    return ask


@pytest.mark.parametrize("days", [1 / 1440, 1.5, 30, MAX_AWAY_DAYS, 400])
def test_a_pause_changes_the_features_that_read_it_and_no_other(build_requests, days):
    _, before = build_requests(None)
    requests, after = build_requests(np.full(5, int(days * DAY_US)))
    changed = {name for name, x in after.items() if not np.array_equal(x, before[name], equal_nan=True)}
    assert changed == READS_THE_PAUSE
    away = after["user_days_since_last"][:, 0]
    np.testing.assert_allclose(away[:4], min(days, MAX_AWAY_DAYS), rtol=1e-6)
    assert np.isnan(away[4]) and (requests.history.item[4] == NONE).all()
    assert np.nanmin(after["hours_since_item"]) >= 24 * min(days, MAX_AWAY_DAYS) - 1e-3


def test_a_pause_moves_events_and_keeps_their_order_and_the_gaps_between_them(build_requests):
    before, _ = build_requests(None)
    after, _ = build_requests(np.full(5, 100 * DAY_US))
    for b in range(5):
        real = before.history.item[b] != NONE
        shift = (after.history.time - before.history.time)[b, real]
        seen = after.seen.time.row(b) - before.seen.time.row(b)
        assert len({*shift.tolist(), *seen.tolist()}) == (b < 4), "one shift for everything a user did"
        assert not after.history.time[b, ~real].any()
    np.testing.assert_array_equal(after.history.item, before.history.item)
    np.testing.assert_array_equal(after.seen.item.values, before.seen.item.values)


def test_requests_at_their_logged_time_are_not_moved(build_requests):
    _, before = build_requests(None)
    _, moved = build_requests(np.full(5, 7 * DAY_US))
    _, mixed = build_requests(np.array([AS_LOGGED, 7 * DAY_US, AS_LOGGED, 7 * DAY_US, AS_LOGGED]))
    for name, x in mixed.items():
        np.testing.assert_array_equal(x[[0, 2, 4]], before[name][[0, 2, 4]], err_msg=name)
        np.testing.assert_array_equal(x[[1, 3]], moved[name][[1, 3]], err_msg=name)
