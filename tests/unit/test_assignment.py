"""Assignment of units to experiments and arms: shares, independence, and who moves when shares change."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from handsell.core.hashing import hash_unit
from handsell.experiments.assignment import assign, assign_arm, assign_experiment, hash_units, is_held_out
from handsell.experiments.config import Experiment

NOW = 1_800_000_000_000_000
UNITS = hash_units([f"user {i}" for i in range(20_000)])


def on_day(day: int) -> datetime:
    return datetime(2026, 12, 1 + day, tzinfo=UTC)


def us(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000


def shares_of(least: int, most: int):
    """Shares that add up to 1, in percent steps."""
    weights = st.lists(st.integers(1, 50), min_size=least, max_size=most)
    return weights.map(lambda w: [x / sum(w) for x in w])


def named(*histories):
    return {f"arm_{i}": list(history) for i, history in enumerate(zip(*histories, strict=True))}


@settings(deadline=None, max_examples=25)
@given(shares_of(2, 6), st.text(max_size=10))
def test_units_are_spread_by_the_shares(shares, salt):
    counts = np.bincount(assign(salt, named(shares), UNITS), minlength=len(shares))
    assert chisquare(counts, np.array(shares) * len(UNITS)).pvalue > 1e-6


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_change_never_moves_units_between_arms_that_keep_their_share(data):
    """Whether or not the former shares are recorded."""
    before = data.draw(shares_of(3, 6))
    changed = data.draw(st.lists(st.integers(0, len(before) - 1), min_size=2, max_size=len(before), unique=True))
    after, total = list(before), sum(before[i] for i in changed)
    weights = data.draw(st.lists(st.integers(1, 50), min_size=len(changed), max_size=len(changed)))
    for i, weight in zip(changed, weights, strict=True):
        after[i] = total * weight / sum(weights)
    first = assign("s", named(before), UNITS)
    for second in (assign("s", named(after), UNITS), assign("s", named(before, after), UNITS, [7])):
        kept = [i for i in range(len(before)) if i not in changed]
        assert not ((first != second) & np.isin(first, kept) & np.isin(second, kept)).any()


@settings(deadline=None, max_examples=25)
@given(st.lists(shares_of(4, 4), min_size=2, max_size=5))
def test_with_recorded_shares_only_units_of_arms_that_became_smaller_move(history):
    first, second = (assign("s", named(*history[:n]), UNITS, range(1, n)) for n in (len(history) - 1, len(history)))
    before, after = np.array(history[-2]), np.array(history[-1])
    moved = first != second
    assert set(first[moved]) <= set(np.flatnonzero(after < before))
    assert set(second[moved]) <= set(np.flatnonzero(after > before))
    counts = np.bincount(second, minlength=4)
    assert chisquare(counts, after * len(UNITS)).pvalue > 1e-6


def test_every_unit_is_assigned_by_itself_as_in_a_batch():
    arms = named([0.2, 0.5, 0.3], [0.4, 0.1, 0.5])
    together = assign("s", arms, UNITS[:500], [7])
    assert [int(assign("s", arms, UNITS[i : i + 1], [7])[0]) for i in range(500)] == together.tolist()
    assert assign("s", arms, UNITS[:500][::-1], [7]).tolist() == together[::-1].tolist()


def test_different_salts_are_independent():
    first, second = (assign(salt, named([0.5, 0.3, 0.2]), UNITS) for salt in ("one", "two"))
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    assert chi2_contingency(table).pvalue > 1e-4


def test_assignments_are_the_same_in_every_version():
    """A change of the hash would move the users of running experiments."""
    arms = {"control": [0.5], "bold": [0.3], "calm": [0.2]}
    units = hash_units(["u1", "u2", "u3", "ü", "anonymous:v", None])
    assert assign("bolder", arms, units).tolist() == [0, 2, 2, 1, 1, -1]
    assert hash_unit("u1") == 15_378_189_911_849_802_130


def experiment(**keys) -> Experiment:
    arms = {"control": {"share": 0.5}, "bold": {"share": 0.5}}
    return Experiment.model_validate({"arms": arms, **keys})


def test_experiments_of_a_layer_exclude_each_other_and_their_arms_are_independent_of_the_layer():
    layer = {"one": experiment(share=0.3), "two": experiment(share=0.5)}
    found = assign_experiment("main", layer, UNITS, NOW)
    counts = np.array([(found == i).sum() for i in (0, 1, -1)])
    assert chisquare(counts, np.array([0.3, 0.5, 0.2]) * len(UNITS)).pvalue > 1e-4
    arm = assign_arm("one", layer["one"], UNITS, NOW)
    table = np.array([[((found == e) & (arm == a)).sum() for a in (0, 1)] for e in (0, 1, -1)])
    assert chi2_contingency(table).pvalue > 1e-4


def test_units_of_one_layer_are_spread_alike_over_another():
    layers = [assign_experiment(name, {name: experiment(share=0.5)}, UNITS, NOW) for name in ("main", "slate")]
    table = np.array([[((layers[0] == a) & (layers[1] == b)).sum() for a in (0, -1)] for b in (0, -1)])
    assert chi2_contingency(table).pvalue > 1e-4


def test_an_experiment_that_starts_grows_or_stops_moves_no_units_of_its_neighbor():
    layer = {
        "a": experiment(share=0.6, start=on_day(2), stop=on_day(9), former=[{"until": on_day(5), "share": 0.2}]),
        "b": experiment(share=0.3, start=on_day(1)),
        "c": experiment(share=0.1, start=on_day(7)),
    }
    found = {day: assign_experiment("main", layer, UNITS, us(on_day(day))) for day in range(11)}
    assert (found[0] == -1).all()
    for day in range(1, 11):
        assert ((found[day] == 1) == (found[1] == 1)).all()
    assert set(found[5][found[4] == 0]) == {0} and set(found[4][(found[5] == 0) & (found[4] != 0)]) == {-1}
    shares = {day: [np.mean(found[day] == i) for i in range(3)] for day in (1, 4, 6, 8, 10)}
    for day, expected in {
        1: (0, 0.3, 0),
        4: (0.2, 0.3, 0),
        6: (0.6, 0.3, 0),
        8: (0.6, 0.3, 0.1),
        10: (0, 0.3, 0.1),
    }.items():
        assert shares[day] == pytest.approx(expected, abs=0.015), day


def test_recorded_changes_of_arms_count_from_their_time():
    arms = {"control": {"share": 0.6, "former": [{"until": on_day(3), "share": 0.8}]}}
    arms["bold"] = {"share": 0.4, "former": [{"until": on_day(3), "share": 0.2}]}
    one = Experiment.model_validate({"arms": arms})
    before, after = (assign_arm("one", one, UNITS, us(on_day(day))) for day in (2, 4))
    assert before.mean() == pytest.approx(0.2, abs=0.015) and after.mean() == pytest.approx(0.4, abs=0.015)
    assert (after[before == 1] == 1).all()


def test_the_holdout_only_grows_with_its_share():
    small, large = is_held_out(0.02, UNITS), is_held_out(0.1, UNITS)
    assert (large | ~small).all() and large.mean() == pytest.approx(0.1, abs=0.01)
    assert not is_held_out(0.99, np.zeros(1, np.uint64)).any()  # nobody is known
