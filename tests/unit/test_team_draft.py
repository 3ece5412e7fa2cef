"""Team-draft interleaving: order, fairness, chances, and the better ranking wins."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from handsell.core.batches import NONE, Slates
from handsell.experiments.interleaved_slates import interleave, map_bits
from handsell.experiments.interleaving import draft_teams, toss

SEEDS = np.arange(4_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def ranking(items, width):
    return np.array([[*items, *[NONE] * (width - len(items))]], np.int32)


def draft_slowly(first, second, n, coins):
    """The algorithm as it is published, one request in Python."""
    slate, teams, counts, coin = [], [], [0, 0], iter(coins)
    while len(slate) < n:
        left = [[i for i in one if i not in slate] for one in (first, second)]
        tossed = next(coin)
        if not left[0] and not left[1]:
            break
        if not left[0] or not left[1]:
            slate.append((left[0] or left[1])[0])
            teams.append(NONE)
            continue
        turn = int(tossed) if counts[0] == counts[1] else int(counts[0] > counts[1])
        slate.append(left[turn][0])
        teams.append(turn)
        counts[turn] += 1
    return slate, teams


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_slates_are_those_of_the_published_algorithm(data):
    items = st.lists(st.integers(0, 9), unique=True, max_size=8)
    first, second, n = data.draw(items), data.draw(items), data.draw(st.integers(1, 10))
    seed = np.array([data.draw(st.integers(0, 2**64 - 1))], np.uint64)
    draft = draft_teams(ranking(first, 8), ranking(second, 9), n, seed)
    slate, teams = draft_slowly(first, second, n, [bool(toss(seed, p)[0]) for p in range(n)])
    size = len(slate)
    assert draft.item[0, :size].tolist() == slate and (draft.item[0, size:] == NONE).all()
    assert draft.team[0, :size].tolist() == teams
    for item, which, column in zip(slate, draft.ranking[0], draft.column[0], strict=False):
        assert (first, second)[which][column] == item


def test_a_batch_is_as_each_request_by_itself(rng):
    first, second = (np.stack([rng.permutation(20)[:10] for _ in range(50)]) for _ in range(2))
    together = draft_teams(first, second, 8, SEEDS[:50])
    for b in range(50):
        alone = draft_teams(first[b : b + 1], second[b : b + 1], 8, SEEDS[b : b + 1])
        assert (alone.item[0] == together.item[b]).all() and (alone.team[0] == together.team[b]).all()


def test_every_position_is_equally_often_each_teams():
    first, second = (np.broadcast_to(np.arange(8) + start, (len(SEEDS), 8)) for start in (0, 100))
    draft = draft_teams(first, second, 8, SEEDS)
    for position in range(8):
        assert binomtest(int((draft.team[:, position] == 0).sum()), len(SEEDS)).pvalue > 1e-4


def test_the_chance_of_an_item_is_its_frequency_given_those_above():
    first, second = (np.broadcast_to(np.array(one), (len(SEEDS), 4)) for one in ([1, 2, 3, 4], [2, 1, 5, 3]))
    draft = draft_teams(first, second, 4, SEEDS)
    for position in range(4):
        above = [(*items[:position], *team[:position]) for items, team in zip(draft.item, draft.team, strict=True)]
        seen, groups = Counter(zip(above, draft.item[:, position].tolist(), strict=True)), Counter(above)
        for (prefix, item), count in seen.items():
            rows = [b for b, one in enumerate(above) if one == prefix and draft.item[b, position] == item]
            expected = draft.chance[rows[0], position]
            assert binomtest(count, groups[prefix], expected).pvalue > 1e-5, (position, prefix, item)


def test_clicks_credit_the_better_ranking(rng):
    """Users like items 0 to 4 with probability 0.3, the others with 0.1; one ranking has the better ones on top."""
    first = np.stack([np.concatenate([rng.permutation(5), 5 + rng.permutation(5)]) for _ in SEEDS])
    second = np.stack([np.concatenate([5 + rng.permutation(5), rng.permutation(5)]) for _ in SEEDS])
    for rankings, better in (((first, second), 0), ((second, first), 1), ((first, first), None)):
        draft = draft_teams(*rankings, 6, SEEDS)
        clicks = rng.random(draft.item.shape) < np.where(draft.item < 5, 0.3, 0.1)
        won = [((draft.team == team) & clicks).sum(axis=1) for team in (0, 1)]
        wins, losses = int((won[0] > won[1]).sum()), int((won[0] < won[1]).sum())
        test = binomtest(wins, wins + losses)
        if better is None:
            assert test.pvalue > 1e-3
        else:
            assert test.pvalue < 1e-6 and (wins > losses) == (better == 0)


def build_slates(items, sources, bits, propensity=1.0, relaxed=None, constraints=()):
    shape = (1, len(items))
    return Slates(
        np.array([items], np.int32), np.full(shape, 0.5, np.float32), np.array([bits], np.uint32),
        np.zeros(shape, np.int8), np.full(shape, NONE, np.int32), np.full(shape, propensity, np.float32), sources,
        relaxed, constraints,
    )  # fmt: skip


def test_a_slate_keeps_the_sources_and_constraints_of_the_arm_that_brought_the_item():
    first = build_slates([1, 2], ("als", "pop"), [1, 2], 0.4, np.array([[1, 0]], np.uint32), ("gap",))
    second = build_slates([3, 4, 5], ("pop", "knn"), [1, 2, 3], 1.0, np.array([[0, 2, 0]], np.uint32), ("rule", "gap"))
    found = set()
    for seed in range(20):
        slates, teams = interleave(first, second, 5, seed)
        assert sorted(slates.item[0].tolist()) == [1, 2, 3, 4, 5] and slates.sources == ("als", "pop", "knn")
        names = {1: {"als"}, 2: {"pop"}, 3: {"pop"}, 4: {"knn"}, 5: {"pop", "knn"}}
        for place, item in enumerate(slates.item[0].tolist()):
            bits = int(slates.source[0, place])
            assert {name for s, name in enumerate(slates.sources) if bits >> s & 1} == names[item]
        assert slates.relaxed_constraints(0, 5) == ["gap"]
        assert teams[4] == NONE and slates.propensity[0, 4] == 1, "the first arm has no more items"
        assert slates.propensity[0, 0] == (0.2 if teams[0] == 0 else np.float32(0.5))
        found.add(tuple(teams[:4].tolist()))
    rounds = [(0, 1), (1, 0)], [(0, NONE), (1, 0)]  # nobody drafts against the second arm after the first's last item
    assert found == {(*a, *b) for a, b in itertools.product(*rounds)}


def test_an_empty_slate_leaves_the_other_alone():
    first, second = build_slates([], ("als",), []), build_slates([3, 4], ("als",), [1, 1])
    slates, teams = interleave(first, second, 3, 1)
    assert slates.item[0].tolist() == [3, 4, NONE] and (teams == NONE).all()


def test_bits_are_mapped_by_name():
    assert map_bits(np.array([0b101], np.uint32), ("a", "b", "c"), ("c", "b", "a")).tolist() == [0b101]
    assert map_bits(np.array([0b10], np.uint32), ("a", "b"), ("x", "y", "a", "b")).tolist() == [0b1000]
    assert map_bits(np.array([0b11], np.uint32), ("a", "b"), ("a", "b", "c")).tolist() == [0b11]
