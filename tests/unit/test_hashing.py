"""Numbers drawn by hash: the published sequence, evenly spread, independent by seed, and the same in every run."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.hashing import hash_column, mix, uniform
from handsell.data.event_key import compute_event_keys, find_event_ids, replace_users

GAMMA = np.uint64(0x9E3779B97F4A7C15)


def test_mix_gives_the_published_sequence_of_splitmix64():
    """The generator adds GAMMA to its state and mixes: the first numbers of seed 0."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(np.arange(3, dtype=np.uint64) * GAMMA).tolist() == published


def test_every_input_bit_changes_about_half_of_the_output_bits(rng):
    x = rng.integers(0, 2**63, 2_000).astype(np.uint64)
    for bit in range(64):
        changed = mix(x) ^ mix(x ^ np.uint64(1 << bit))
        share = np.unpackbits(changed.view(np.uint8)).mean()
        assert share == pytest.approx(0.5, abs=0.02), f"bit {bit}"


def test_the_numbers_are_the_same_in_every_run():
    found = uniform(1, np.array([0, 7]), np.array([1_700_000_000_000_000, -1]))
    assert found.tolist() == [0.03480211561890678, 0.10055742248350408]


def test_neighboring_keys_spread_evenly_over_0_to_1():
    found = uniform(3, np.arange(20_000), np.full(20_000, 1_700_000_000_000_000))
    assert found.min() >= 0 and found.max() < 1
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 43.8, "chi-square of 19 degrees of freedom, 0.1 %"


@pytest.mark.parametrize("other", ["seed", "first key", "second key"])
def test_another_seed_or_key_gives_independent_numbers(other):
    user, time = np.arange(10_000), np.full(10_000, 5)
    one = uniform(1, user, time)
    two = uniform(1 + (other == "seed"), user + 10_000 * (other == "first key"), time + (other == "second key"))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.035
    assert not (one == two).any()


def test_the_order_of_keys_matters():
    a, b = np.arange(1, 100), np.arange(101, 200)
    assert not (uniform(1, a, b) == uniform(1, b, a)).any()


def test_a_number_depends_on_its_own_keys_and_not_on_their_integer_type():
    user, time = np.arange(-50, 50), np.arange(100) * 1_000_003
    whole = uniform(2, user, time)
    np.testing.assert_array_equal(uniform(2, user[40:60].astype(np.int32), time[40:60]), whole[40:60])
    assert uniform(2, user[:0], time[:0]).shape == (0,)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(*[st.text(max_size=9)] * 3, st.integers(0, 2**50), st.text(max_size=9)), min_size=1))
def test_the_user_of_a_key_is_exchanged_without_its_time_or_without_its_event_id(rows):
    users, items, types, times, ids = (list(column) for column in zip(*rows, strict=True))
    others, event_ids = pa.array([f"other {user}" for user in users]), pa.array(ids, pa.string())
    events = {
        "user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string()),
        "type": pa.array(types, pa.string()),
    }  # fmt: skip
    timed = events | {"time": pa.array(times, pa.int64())}
    keys = compute_event_keys({**timed, "event_id": event_ids})
    expected = compute_event_keys({**timed, "user_id": others, "event_id": event_ids})
    assert replace_users(keys, events, others, hash_column(event_ids)).tolist() == expected.tolist()
    assert find_event_ids(keys, timed).tolist() == hash_column(event_ids).tolist()
