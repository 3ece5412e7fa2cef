"""Windows and requests: cut by time, and by each user's last events."""

import numpy as np

from handsell.data import splits
from handsell.data.config import SplitConfig
from handsell.data.interactions import Interactions

DAY = splits.DAY_US


def log(rows: list[tuple[int, int, float, float]], n_items: int = 10) -> Interactions:
    """Events from (user, item, day, weight)."""
    user, item, day, weight = (np.array(c) for c in zip(*rows, strict=True))
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), np.zeros(len(rows), np.int8),
        (day * DAY).astype(np.int64), weight.astype(np.float32), int(user.max()) + 1, n_items,
    )  # fmt: skip


def requests_of(events: Interactions, split: SplitConfig, which: int, impression: np.ndarray | None = None):
    shown = np.zeros(len(events), bool) if impression is None else impression
    bounds = splits.Bounds.of(split, int(events.time.max()))
    window = splits.assign_windows(events, ~shown, split, bounds)
    stretch = splits.number_stretches(events, ~shown, window, split, gap_us=DAY // 24)
    unknown = np.zeros(len(events), np.int16), np.full(len(events), np.nan, np.float32)
    return window, splits.build_window_requests(events, ~shown, unknown, window, stretch, which)


def relevant(found: splits.WindowRequests, r: int) -> list[int]:
    return found.acted.row(r)[found.gain.row(r) > 0].tolist()


def test_by_time_cuts_at_fixed_times_and_groups_sessions():
    events = log([(0, 1, 0.0, 1), (0, 2, 5.5, 1), (0, 3, 5.51, 1), (0, 4, 5.9, 1), (1, 5, 6.0, 1)])
    split = SplitConfig(kind="by_time", ranker_days=2, validation_days=1, test_days=1)
    window, test = requests_of(events, split, splits.TEST)
    assert window.tolist() == [splits.RETRIEVAL, splits.TEST, splits.TEST, splits.TEST, splits.TEST]
    assert test.user.tolist() == [0, 0, 1]
    assert [relevant(test, r) for r in range(3)] == [[2, 3], [4], [5]]
    assert test.time.tolist() == [int(5.5 * DAY), int(5.9 * DAY), 6 * DAY]


def test_an_item_whose_weights_cancel_out_is_not_relevant():
    events = log([(0, 1, 0.0, 1), (0, 2, 5.9, 1), (0, 2, 5.91, -2), (0, 3, 5.92, 2), (0, 3, 5.925, 1)])
    split = SplitConfig(kind="by_time", ranker_days=1, validation_days=1, test_days=1)
    _, test = requests_of(events, split, splits.TEST)
    assert relevant(test, 0) == [3]
    assert test.gain.row(0).tolist() == [-1.0, 3.0], "a refusal is kept: it teaches the ranker"


def test_impressions_are_shown_items_and_never_relevant():
    events = log([(0, 1, 0.0, 1), (0, 2, 5.9, 0), (0, 3, 5.9, 0), (0, 3, 5.901, 1)])
    split = SplitConfig(kind="by_time", ranker_days=1, validation_days=1, test_days=1)
    _, test = requests_of(events, split, splits.TEST, impression=np.array([False, True, True, False]))
    assert test.shown.row(0).tolist() == [2, 3]
    assert relevant(test, 0) == [3]
    assert test.time[0] == events.time[1], "the request stands where the slate was shown"


def test_leave_last_k_takes_the_last_events_of_each_user():
    rows = [(0, i, float(i), 1.0) for i in range(9)] + [(1, i, float(i), 1.0) for i in range(4)]
    split = SplitConfig(kind="leave_last_k", ranker_k=4, validation_k=2, test_k=2)
    events = log(rows)
    window, test = requests_of(events, split, splits.TEST)
    assert window[:9].tolist() == [0, 1, 1, 1, 1, 2, 2, 3, 3]
    assert window[9:].tolist() == [0, 0, 0, 0], "too few events: only the retrievers learn from this user"
    assert test.user.tolist() == [0]
    assert relevant(test, 0) == [7, 8]
    _, ranker = requests_of(events, split, splits.RANKER)
    assert [relevant(ranker, r) for r in range(len(ranker))] == [[1, 2], [3, 4]]
    assert ranker.time.tolist() == [1 * DAY, 3 * DAY]


def test_every_relevant_item_has_an_interaction_at_or_after_the_request(rng):
    n = 400
    user = np.sort(rng.integers(0, 12, n)).astype(np.int32)
    events = log([(int(u), int(rng.integers(10)), float(d), 1.0) for u, d in zip(user, rng.random(n) * 9, strict=True)])
    events = events.where(np.lexsort((events.time, events.user)))
    for split in (SplitConfig(ranker_days=2, validation_days=1, test_days=1), SplitConfig(kind="leave_last_k")):
        for which in (splits.RANKER, splits.VALIDATION, splits.TEST):
            _, found = requests_of(events, split, which)
            assert len(found) > 0
            for r in range(len(found)):
                mine = events.user == found.user[r]
                later = events.item[mine & (events.time >= found.time[r])]
                assert set(relevant(found, r)) <= set(later)


def test_sampling_keeps_the_same_requests_whatever_their_order(rng):
    events = log([(u, 1, 8.9 + u / 1000, 1.0) for u in range(500)])
    _, found = requests_of(events, SplitConfig(ranker_days=1, validation_days=1, test_days=1), splits.TEST)
    kept = splits.sample(found, 0.3)
    assert 100 < len(kept) < 200
    again = splits.sample(found, 0.3)
    assert kept.user.tolist() == again.user.tolist()
