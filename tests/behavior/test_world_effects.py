"""Planted effects of the world can be measured in its events; the oracle is an upper bound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import WorldConfig
from handsell.data.world import build_users_table, n_partitions, write_partition
from handsell.data.world.catalog import get_log_span
from handsell.data.world.oracle import Oracle
from handsell.data.world.preference import build_listener_states

WORLD = WorldConfig(users=900, items=1500, artists=200, tags=24, days=30, users_per_partition=450)


@dataclass
class Log:
    """Events sorted by user and time; `session` numbers them."""

    oracle: Oracle
    user: np.ndarray
    item: np.ndarray
    type: np.ndarray
    surface: np.ndarray
    position: np.ndarray
    time: np.ndarray
    session: np.ndarray
    start: np.ndarray  # of each event's session

    @property
    def energy(self) -> np.ndarray:
        return self.oracle.tracks.energy[self.item]

    @property
    def organic(self) -> np.ndarray:
        return (self.type == "listen") & (self.surface != "home")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("effects")
    for partition in range(n_partitions(WORLD)):
        write_partition(WORLD, partition, folder / "events", folder / "truth")
    oracle, table = Oracle.load(folder / "truth"), pq.read_table(folder / "events")
    user, item = oracle.user_numbers(table["user_id"].to_pylist()), oracle.item_numbers(table["item_id"].to_pylist())
    time = table["time"].cast(pa.int64()).to_numpy()
    order = np.lexsort((time, user))
    user, item, time = user[order], item[order], time[order]
    new = np.append(True, (user[1:] != user[:-1]) | (np.diff(time) > HOUR_US / 2))
    session = np.cumsum(new) - 1
    kind, surface = (table[c].to_numpy(zero_copy_only=False).astype(str)[order] for c in ("type", "surface"))
    position = table["position"].fill_null(-1).to_numpy()[order]
    return Log(oracle, user, item, kind, surface, position, time, session, time[new][session])


def test_the_shape_of_the_world(log: Log) -> None:
    listens = log.type == "listen"
    assert abs(log.organic.sum() / listens.sum() - WORLD.organic_share) < 0.06
    pair = log.user[listens].astype(np.int64) * WORLD.items + log.item[listens]
    repeated = 1 - len(np.unique(pair)) / len(pair)
    assert 0.22 < repeated < 0.42
    by_item = np.sort(np.bincount(log.item[listens], minlength=WORLD.items))[::-1]
    assert by_item[: WORLD.items // 100].sum() > 0.08 * by_item.sum()  # popularity is skewed


def test_there_are_cold_items_and_cold_users(log: Log) -> None:
    start, end = get_log_span(WORLD)
    published = log.oracle.tracks.published
    assert (published >= end - 3 * DAY_US).sum() >= 5
    before = np.bincount(log.item[log.time < end - 3 * DAY_US], minlength=WORLD.items)
    assert (before[published >= end - 3 * DAY_US] == 0).all()
    assert (np.bincount(log.item[log.time >= end - 3 * DAY_US], minlength=WORLD.items)[before == 0] > 0).any()
    joined = build_users_table(WORLD)["joined_at"].cast(pa.int64()).to_numpy()
    assert 0.15 < (joined > start).mean() < 0.35
    listens = np.bincount(log.user[log.type == "listen"], minlength=WORLD.users)
    assert (listens <= 5).mean() > 0.05


def test_position_bias_the_top_of_a_slate_is_listened_to_more(log: Log) -> None:
    shown = np.bincount(log.position[log.type == "impression"], minlength=WORLD.slate + 1)[1:]
    taken = np.bincount(log.position[(log.type == "listen") & (log.position > 0)], minlength=WORLD.slate + 1)[1:]
    rate = taken / shown
    assert rate[:2].mean() > 1.5 * rate[-2:].mean()


def test_nights_are_calm_and_mornings_energetic(log: Log) -> None:
    hour = log.start / HOUR_US % 24
    night, morning = log.organic & (hour < 4), log.organic & (hour >= 7) & (hour < 11)
    assert log.energy[morning].mean() - log.energy[night].mean() > 0.15


def test_boredom_a_track_comes_back_after_days_rather_than_the_next_session(log: Log) -> None:
    first = np.flatnonzero(np.diff(log.session, prepend=-1))[::4]
    _, start, heard, when = requests(log, first)
    again = np.zeros((len(first), WORLD.items), bool)
    inside = log.organic & np.isin(log.session, log.session[first])
    again[np.searchsorted(log.session[first], log.session[inside]), log.item[inside]] = True
    row, place = np.nonzero(heard >= 0)
    last = np.zeros(again.shape, np.int64)
    np.maximum.at(last, (row, heard[row, place]), when[row, place])
    days = (start[:, None] - last) / DAY_US
    soon, later = (last > 0) & (days < 1), (last > 0) & (days >= 3) & (days < 9)
    assert soon.sum() > 1000 and later.sum() > 1000
    assert again[later].mean() > 1.5 * again[soon].mean()


def test_order_within_a_session_energy_flows_and_artists_alternate(log: Log) -> None:
    played = np.flatnonzero(log.organic)
    rng = np.random.default_rng(0)
    shuffled = played[np.lexsort((rng.random(len(played)), log.session[played]))]
    same = np.diff(log.session[played]) == 0
    artist = log.oracle.tracks.artist[log.item]

    def jump(rows: np.ndarray) -> float:
        return float(np.abs(np.diff(log.energy[rows]))[same].mean())

    def twice(rows: np.ndarray) -> float:
        return float((np.diff(artist[rows]) == 0)[same].mean())

    # a third of neighbors in a shuffled session of three are neighbors in truth: the differences are damped
    assert jump(played) < 0.97 * jump(shuffled)
    assert twice(played) < 0.8 * twice(shuffled)


def test_new_releases_are_sought_beyond_their_popularity(log: Log) -> None:
    search = log.surface == "search"
    tracks, (start, end) = log.oracle.tracks, get_log_span(WORLD)
    age = (log.time - tracks.published[log.item]) / DAY_US
    released_days = np.clip((end - np.maximum(tracks.published, start)) / DAY_US, 0, 10)
    during = tracks.published > start
    fresh = (search & (age < 10) & during[log.item]).sum() / (tracks.weight * released_days)[during].sum()
    old = (search & ~during[log.item]).sum() / (tracks.weight[~during].sum() * WORLD.days)
    assert fresh > 1.3 * old


def test_tastes_drift_and_listens_follow(log: Log) -> None:
    """From the first to the last third, a user's listens move the way that the true tastes move."""
    start, end = get_log_span(WORLD)
    part = (log.time - start) * 3 // (end - start)
    everybody = np.arange(WORLD.users)
    means, true, enough = [], [], np.ones(WORLD.users, bool)
    for third, at in ((0, 1 / 6), (2, 5 / 6)):
        rows = np.flatnonzero(log.organic & (part == third))
        heard = np.zeros((WORLD.users, log.oracle.tracks.vector.shape[1]))
        np.add.at(heard, log.user[rows], log.oracle.tracks.vector[log.item[rows]])
        count = np.bincount(log.user[rows], minlength=WORLD.users)
        means.append(heard / np.maximum(count, 1)[:, None])
        enough &= count >= 8
        now = build_listener_states(
            log.oracle.people, everybody, np.full(WORLD.users, start + int(at * (end - start))), (start, end)
        )
        true.append((np.exp(now.share)[:, :, None] * now.taste).sum(axis=1))
    moved, meant = means[1][enough] - means[0][enough], true[1][enough] - true[0][enough]
    agree = (moved * meant).sum(axis=1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(meant, axis=1)
    assert enough.sum() > 50
    assert agree.mean() > 0.1 and agree.mean() > 4 * agree.std() / np.sqrt(len(agree))


def requests(log: Log, rows: np.ndarray, size: int = 60) -> tuple[np.ndarray, ...]:
    """Arguments for the oracle at the session starts of events `rows`."""
    heard = np.flatnonzero(log.type == "listen")
    item, time = np.full((len(rows), size), -1), np.zeros((len(rows), size), np.int64)
    for r, row in enumerate(rows):
        low, high = np.searchsorted(heard, [np.searchsorted(log.user, log.user[row]), row])
        past = heard[low:high]
        past = past[log.time[past] < log.start[row]][-size:]
        item[r, : len(past)], time[r, : len(past)] = log.item[past], log.time[past]
    return log.user[rows], log.start[rows], item, time


def test_first_choices_follow_the_softmax_of_true_utility(log: Log) -> None:
    """The oracle uses the preferences of the listeners: predicted and observed choices agree."""
    start, _ = get_log_span(WORLD)
    first = np.flatnonzero(np.diff(log.session, prepend=-1))
    first = first[log.organic[first] & (log.start[first] > start + 7 * DAY_US)]
    asked = requests(log, first)
    value = log.oracle.true_utility(*asked)
    chance = np.exp(value - value.max(axis=1, keepdims=True))
    chance /= chance.sum(axis=1, keepdims=True)
    known = np.zeros_like(chance, bool)
    row, place = np.nonzero(asked[2] >= 0)
    known[row, asked[2][row, place]] = True
    chosen = log.item[first]
    assert len(first) > 1000
    assert abs((chance * known).sum(axis=1).mean() - known[np.arange(len(first)), chosen].mean()) < 0.05
    mean_energy = (chance * log.oracle.tracks.energy).sum(axis=1)
    assert abs(mean_energy.mean() - log.energy[first].mean()) < 0.03
    # sharpness: the probability given to what was chosen is what such a softmax gives on average
    given = chance[np.arange(len(first)), chosen]
    assert abs(np.log(given / (chance**2).sum(axis=1)).mean()) < 2.0
    assert 0.7 < given.mean() / (chance**2).sum(axis=1).mean() < 1.2


def test_the_oracle_is_far_above_popularity_and_below_one(log: Log) -> None:
    _, end = get_log_span(WORLD)
    test = log.start >= end - 3 * DAY_US
    good = np.isin(log.type, ["listen", "like", "save", "share"])
    first = np.flatnonzero(np.diff(log.session, prepend=-1))
    first = first[np.isin(log.session[first], log.session[test & good])]
    relevant = np.zeros((len(first), WORLD.items), bool)
    rows = np.searchsorted(log.session[first], log.session[test & good])
    relevant[rows, log.item[test & good]] = True
    train = good & (log.start < end - 3 * DAY_US)
    popular = np.bincount(log.item[train], minlength=WORLD.items)[None, :].repeat(len(first), axis=0)
    asked = requests(log, first)
    base, utility, listens = (
        ndcg(score, relevant)
        for score in (popular, log.oracle.true_utility(*asked), log.oracle.expected_listens(*asked))
    )
    assert 0.02 < base < 0.3
    assert 2 * base < utility < 0.8
    assert listens > 0.97 * utility  # knowing what the policy shows does not hurt


def ndcg(score: np.ndarray, relevant: np.ndarray, k: int = 10) -> float:
    top = np.argsort(-score, axis=1, kind="stable")[:, :k]
    discount = 1 / np.log2(np.arange(k) + 2)
    best = np.cumsum(discount)[np.minimum(relevant.sum(axis=1), k) - 1]
    return float((np.take_along_axis(relevant, top, axis=1) @ discount / best).mean())


def test_the_truth_folder_is_read_only_where_it_may_be() -> None:
    """Nothing of handsell but evaluation, simulation and the world itself imports the oracle or the truth."""
    source = Path(__file__).parents[2] / "src" / "handsell"
    allowed = ("evaluation", "simulation", "data/world", "jobs")
    for path in source.rglob("*.py"):
        inside = path.relative_to(source).as_posix()
        if not inside.startswith(allowed):
            assert "world.oracle" not in path.read_text(encoding="utf-8"), inside
