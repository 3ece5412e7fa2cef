"""Contract tests for features. To run them for a registered feature, inherit the class in a test module:

from handsell.testing.feature_contract import FeatureContract

class TestEveningShare(FeatureContract):
    names = ("user_evening_share",)

Values are computed from a random event log on a small catalog: by the fold and by the day counts of the features job,
and again from feature store rows with later events folded in, as serving does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from handsell.catalog.snapshot import ALWAYS, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.events.fold import fold, truncate
from handsell.events.states import Events, FoldRules, ItemAttributes, UserStates
from handsell.features.crosses import Pairs
from handsell.features.feature_times import find_last_events, fold_at
from handsell.features.item import DailyValues, ItemDays, compute_item_rows, count_days
from handsell.features.matrix import build_matrix, list_features
from handsell.features.registry import Feature, find_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.rows import Vocabularies, build_user_rows
from handsell.features.user import list_user_features
from handsell.testing.small_catalog import NOW, draw_candidates, draw_snapshot

USERS, ITEMS, EVENTS = 6, 40, 240  # the last user and the last item have no event
CONFIG = Config.model_validate({"name": "features"})
WEIGHTS = np.array([kind.weight for kind in CONFIG.events.types.values()], np.float32)
TYPES = np.array([kind.seen for kind in CONFIG.events.types.values()])
GROUPS = ("user", "item", "cross", "context")


@dataclass(frozen=True)
class FeatureCase:
    """A catalog, an event log of 60 days around NOW, and USERS requests at NOW with the whole catalog as candidates."""

    catalog: Snapshot
    log: Events  # by time

    @classmethod
    def draw(cls, seed: int) -> FeatureCase:
        rng = np.random.default_rng(seed)
        time = np.sort(NOW + rng.integers(-40 * DAY_US, 20 * DAY_US, EVENTS))
        log = draw_events(rng, time)
        return cls(draw_snapshot(rng, items=ITEMS, creators=6, tags=5), log)

    @cached_property
    def items(self) -> np.ndarray:
        """(USERS, ITEMS) int32"""
        return np.tile(np.arange(ITEMS, dtype=np.int32), (USERS, 1))

    @property
    def time(self) -> np.ndarray:
        return np.full(USERS, NOW)

    def states(self, events: Events) -> UserStates:
        rules = FoldRules.of(CONFIG)
        attributes = ItemAttributes(self.catalog.creator, self.catalog.item_tags)
        return truncate(fold(rules.empty_states(USERS), events, attributes, rules), rules)

    def requests(self, stored: Events, tail: Events | None = None) -> Requests:
        """From feature store rows that hold the stored events, with the tail folded in."""
        return self.requests_from(self.states(stored), np.arange(USERS), tail)

    def requests_from(self, states: UserStates, user: np.ndarray, tail: Events | None = None) -> Requests:
        """Requests at NOW from the feature store rows of states; one for each user (B,)."""
        ids = Vocabulary.of(f"u{number}" for number in range(USERS))
        names = Vocabularies(ids, self.catalog.items, self.catalog.creators, self.catalog.tags)
        tables = build_user_rows(states, user, names, CONFIG)
        rows = {name: table[name].combine_chunks() for table in tables.values() for name in table.column_names}
        rows["user_number"] = pa.array(user)
        time, surface = np.full(len(user), NOW), np.zeros(len(user), np.int8)
        return build_requests_from_rows(rows, self.catalog, CONFIG, time, surface, events=tail)

    def compute_by_job(self, feature: Feature, log: Events) -> dict[int, np.ndarray]:
        """Values of the users with events before NOW, from the rows that the features job writes for a log."""
        order = np.lexsort((log.time, log.row))
        user, item, types, time, weight = (getattr(log, f)[order] for f in ("row", "item", "type", "time", "weight"))
        events = Interactions(user.astype(np.int32), item, types, time, weight, USERS, ITEMS)
        rows = find_last_events(events, CONFIG, {"last_us": int(log.time.max())}, (np.arange(USERS), self.time))
        attributes = ItemAttributes(self.catalog.creator, self.catalog.item_tags)
        found = {}
        for users, states, _ in fold_at(events, rows, attributes, FoldRules.of(CONFIG)):
            for b in np.flatnonzero(states.state_time < NOW):  # later rounds are later rows
                one = slice(b, b + 1)
                found[int(users[b])] = self.evaluate(feature, self.requests_from(states.take(one), users[one]))[0]
        return found

    def before(self, time: int) -> Events:
        return self.log.where(self.log.time < time)

    def daily_values(self, log: Events) -> DailyValues:
        return DailyValues.of(compute_item_rows(count_item_days(log)), np.zeros((ITEMS, 0), np.float32))

    def compute(self, feature: Feature, stored: Events | None = None, tail: Events | None = None) -> np.ndarray:
        """(USERS,) or (USERS, ITEMS) float32 at NOW, by default from all events before NOW."""
        stored = self.before(NOW) if stored is None else stored
        if feature.group == "item":
            column = list(find_features("item")).index(feature.name)
            return self.daily_values(stored).gather(self.items, self.time)[:, :, column]
        return self.evaluate(feature, self.requests(stored, tail))

    def evaluate(self, feature: Feature, requests: Requests) -> np.ndarray:
        """(B,) or (B, ITEMS) float32 of a user, cross or context feature."""
        if feature.group == "user":
            return requests.profile.features[:, list_user_features(CONFIG).index(feature.name)]
        return np.asarray(feature.value(self.inputs(feature, requests)), np.float32)

    def inputs(self, feature: Feature, requests: Requests) -> Any:
        return Pairs(requests, self.items[: len(requests)], self.catalog) if feature.group == "cross" else requests


def draw_events(rng: np.random.Generator, time: np.ndarray) -> Events:
    """One event for each time (N,)."""
    types = rng.integers(0, len(WEIGHTS), len(time))
    users, items = rng.integers(0, USERS - 1, len(time)), rng.integers(0, ITEMS - 1, len(time))
    return Events.of(users, items, types, time, WEIGHTS[types])


def count_item_days(log: Events) -> ItemDays:
    return count_days(log.item, log.time, log.weight, TYPES[log.type])


def get_features(names: Sequence[str]) -> list[Feature]:
    registered = {name: found for group in GROUPS for name, found in find_features(group).items()}
    if missing := [name for name in names if name not in registered]:
        raise pytest.UsageError(
            f"expected registered features, got {', '.join(missing)}: install the package, with its module as an entry "
            "point of the group handsell.plugins"
        )
    return [registered[name] for name in names]


def only(*groups: str) -> Callable[[Callable], Callable]:
    """Run a test for features of these groups."""

    def mark(test: Callable) -> Callable:
        test.groups = groups  # type: ignore[attr-defined]
        return test

    return mark


def copy_arrays(batch: Any) -> list[np.ndarray]:
    """Copies of all arrays of nested batches."""
    if isinstance(batch, np.ndarray):
        return [batch.copy()]
    return [a for f in fields(batch) for a in copy_arrays(getattr(batch, f.name))] if is_dataclass(batch) else []


class FeatureContract:
    """What every feature guarantees."""

    names: ClassVar[tuple[str, ...]]  # of registered features

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "feature" in metafunc.fixturenames:
            groups = getattr(metafunc.function, "groups", GROUPS)
            chosen = [found for found in get_features(self.names) if found.group in groups]
            metafunc.parametrize("feature", chosen, ids=lambda found: found.name)
        if "seed" in metafunc.fixturenames:
            metafunc.parametrize("seed", range(3))

    def test_it_has_a_description(self, feature: Feature) -> None:
        assert feature.description.endswith("."), "docs/features.md shows the first line of the docstring"

    @only("user", "cross", "context")
    def test_it_returns_one_number_for_each_input(self, feature: Feature, seed: int) -> None:
        case = FeatureCase.draw(seed)
        if feature.group == "user":
            value = feature.value(case.states(case.before(NOW)), case.time)
        else:
            value = feature.value(case.inputs(feature, case.requests(case.before(NOW))))
        assert value.shape == ((USERS, ITEMS) if feature.group == "cross" else (USERS,))
        assert value.dtype.kind in "biuf", f"expected numbers, got {value.dtype}"

    @only("user", "item", "cross")
    def test_it_is_finite_unless_its_default_is_nan(self, feature: Feature, seed: int) -> None:
        value = FeatureCase.draw(seed).compute(feature)
        assert value.dtype == np.float32 and not np.isinf(value).any()
        assert np.isnan(feature.default) or np.isfinite(value).all()

    @only("user", "item", "cross")
    def test_an_unknown_user_and_an_unknown_item_give_the_default(self, feature: Feature, seed: int) -> None:
        case = FeatureCase.draw(seed)
        unknown = replace(
            case.catalog,
            creator=np.full(ITEMS, NONE, np.int32),
            item_tags=Ragged.empty(ITEMS),
            published=np.full(ITEMS, ALWAYS),
        )
        value = replace(case, catalog=unknown).compute(feature, stored=case.log.where(np.zeros(EVENTS, bool)))
        np.testing.assert_array_equal(value, np.full_like(value, feature.default))

    def test_a_batch_gives_what_single_requests_give(self, feature: Feature, seed: int) -> None:
        case = FeatureCase.draw(seed)
        together = case.compute(feature)
        if feature.group == "item":
            before = case.before(NOW)
            for item in range(ITEMS):
                alone = case.compute(feature, stored=before.where(before.item == item))
                np.testing.assert_array_equal(alone[:, item], together[:, item], err_msg=f"item {item}")
            return
        states, requests = case.states(case.before(NOW)), case.requests(case.before(NOW))
        for b in range(USERS):
            one = slice(b, b + 1)
            if feature.group == "user":
                alone = feature.value(states.take(one), case.time[one]).astype(np.float32)
                whole = np.asarray(feature.value(states, case.time), np.float32)
            else:
                alone, whole = feature.value(case.inputs(feature, requests.take(one))).astype(np.float32), together
            np.testing.assert_array_equal(alone[0], whole[b], err_msg=f"row {b} depends on its batch")

    def test_events_at_or_after_the_request_change_nothing(self, feature: Feature, seed: int) -> None:
        """The features job reads the whole log, including events after the request."""
        case, rng = FeatureCase.draw(seed), np.random.default_rng(seed + 100)
        before, value = case.before(NOW), case.compute(feature)
        later = draw_events(rng, np.sort(NOW + rng.integers(0, 20 * DAY_US, EVENTS)))
        other = Events(*(np.concatenate([getattr(before, f), getattr(later, f)]) for f in Events.__slots__))
        for log in (case.log, other):
            if feature.group == "item":
                np.testing.assert_array_equal(case.compute(feature, stored=log), value)
                continue
            found = case.compute_by_job(feature, log)
            assert sorted(found) == list(range(USERS - 1))
            for user, got in found.items():
                np.testing.assert_allclose(got, value[user], rtol=1e-4, atol=1e-5)

    @only("user", "cross", "context")
    def test_new_events_count_as_stored_ones_do(self, feature: Feature, seed: int) -> None:
        """The stored row with later events folded in gives the value of a row that holds them all."""
        case = FeatureCase.draw(seed)
        stored, tail = (
            case.before(NOW - 10 * DAY_US),
            case.before(NOW).where(case.before(NOW).time >= NOW - 10 * DAY_US),
        )
        assert len(stored) and len(tail)
        value = case.compute(feature, stored, tail)
        np.testing.assert_allclose(value, case.compute(feature), rtol=1e-4, atol=1e-5)

    @only("user", "cross", "context")
    def test_it_does_not_change_its_input(self, feature: Feature, seed: int) -> None:
        case = FeatureCase.draw(seed)
        states, requests = case.states(case.before(NOW)), case.requests(case.before(NOW))
        copies = copy_arrays(states) + copy_arrays(requests)
        if feature.group == "user":
            feature.value(states, case.time)
        else:
            feature.value(case.inputs(feature, requests))
        for array, copy in zip(copy_arrays(states) + copy_arrays(requests), copies, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_it_is_the_column_of_the_matrix_that_has_its_name(self, feature: Feature, seed: int) -> None:
        case = FeatureCase.draw(seed)
        found = draw_candidates(np.random.default_rng(seed), case.catalog, USERS, ITEMS, pad=5)
        values = case.daily_values(case.before(NOW))
        requests = case.requests(case.before(NOW))
        names = list_features(CONFIG, found.sources)
        column = build_matrix(requests, found, values, case.catalog, CONFIG)[:, :, names.index(feature.name)]
        expected = case.compute(feature)
        if expected.ndim == 1:
            expected = np.repeat(expected[:, None], ITEMS, axis=1)
        else:
            expected = np.take_along_axis(expected, np.maximum(found.item, 0), axis=1)
            expected[found.item == NONE] = np.nan
        np.testing.assert_array_equal(column, expected)
