"""When and for whom a rule is active."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.errors import ConfigError
from handsell.core.hashing import hash_unit
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.rules.schema import DAYS
from handsell.reranking.rules.scope import Scope, draw
from handsell.testing.rule_catalog import compile_rules, draw_rule_catalog, write_rule

SHELF = draw_rule_catalog(np.random.default_rng(2))
AB = "[experiments.fresh_first]\narms = { a = 0.3, b = 0.7 }\n"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def active(fields: dict, times, surface=0, unit=None, head="", tail=""):
    scope = compile_rules(
        SHELF, head + write_rule("r", "exclude", items="item.explicit", **fields) + tail
    ).ruleset.scope
    at = np.array([(t - EPOCH) // timedelta(microseconds=1) for t in times], np.int64)
    return scope.active(at, np.full(len(at), surface), unit)[0]


@settings(max_examples=100, deadline=None)
@given(
    minute=st.integers(0, 3 * 366 * 1_440),
    days=st.sets(st.sampled_from(DAYS)),
    start=st.integers(0, 1_439),
    length=st.integers(1, 1_439),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
)
def test_days_and_hours_follow_the_time_zone(minute, days, start, length, zone):
    """Compared with a calendar in plain Python; hours past midnight belong to the day on which they begin."""
    moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    end = (start + length) % 1_440
    hours = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    fields = {"hours": hours, "time_zone": zone} | ({"days": sorted(days)} if days else {})
    here = moment.astimezone(ZoneInfo(zone))
    now, today = here.hour * 60 + here.minute, DAYS[here.weekday()]
    yesterday = DAYS[here.weekday() - 1]
    wanted = days or set(DAYS)
    inside = (start <= now < start + length and today in wanted) or (
        now + 1_440 < start + length and yesterday in wanted
    )
    assert active(fields, [moment])[0] == inside


def test_from_is_inclusive_and_until_exclusive():
    tail = 'from = 2026-03-01T00:00:00\nuntil = 2026-03-02T00:00:00Z\ntime_zone = "Europe/Berlin"\n'
    times = [datetime(2026, 2, 28, 22, 59, 59, tzinfo=UTC), datetime(2026, 2, 28, 23, tzinfo=UTC),
             datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)]  # fmt: skip
    assert active({}, times, tail=tail).tolist() == [False, True, True, False]


def test_surfaces():
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    assert active({"surfaces": ["email"]}, now, surface=1)[0] and not active({"surfaces": ["email"]}, now, surface=0)[0]


def test_every_user_is_in_one_arm_for_good():
    unit = np.array([hash_unit(f"u{i}") for i in range(20_000)], np.uint64)
    times = [datetime(2026, 3, 1, tzinfo=UTC)] * len(unit)
    a, b = (active({"arm": arm}, times, unit=unit, head=AB) for arm in "ab")
    assert (a ^ b).all()
    assert a.mean() == pytest.approx(0.3, abs=0.015)
    assert (a == active({"arm": "a"}, times[::-1], unit=unit, head=AB)).all()
    other = active({"arm": "a"}, times, unit=unit, head=AB.replace("fresh_first", "another"))
    assert (a & other).mean() == pytest.approx(0.09, abs=0.015)  # experiments know nothing of each other


def test_assignment_to_arms_is_frozen():
    """A change of arms during an experiment would invalidate it."""
    assert [hash_unit(u) for u in ("u1", "ü", None)] == [15_378_189_911_849_802_130, 3_976_460_501_203_677_525, 0]
    assert draw(np.array([0x9E3779B97F4A7C15], np.uint64), 0)[0] == 0xE220A8397B1DCDAF / 2**64  # splitmix64's first


def test_requests_without_a_user_id_are_in_no_arm():
    now = [datetime(2026, 3, 1, tzinfo=UTC)]
    assert not active({"arm": "a"}, now, unit=np.zeros(1, np.uint64), head=AB)[0]
    assert not active({"arm": "b"}, now, unit=np.zeros(1, np.uint64), head=AB)[0]
    assert not active({"arm": "b"}, now, head=AB)[0]


def compile_scope(text, experiments):
    return Scope.of(parse_rules(text.encode(), "rules.toml"), ["home"], experiments)


CONFIG_ARM = write_rule("r", "boost", items="item.year > 2000", factor=2.0, experiment="bolder", arm="bold")


def test_a_rule_may_refer_to_an_experiment_of_the_config():
    scope = compile_scope(CONFIG_ARM, {"bolder": ("control", "bold")})
    arms = np.empty(4, object)
    arms[:] = [("bolder=bold",), ("bolder=control", "x=bold"), (), ("x=y", "bolder=bold")]
    time, surface = np.zeros(4, np.int64), np.zeros(4, np.int8)
    assert scope.active(time, surface, None, arms)[0].tolist() == [True, False, False, True]
    assert not scope.active(time, surface, None)[0].any()


def test_experiments_and_arms_of_the_config_are_checked_by_name():
    with pytest.raises(ConfigError, match=r"rule 'r': experiment: .*\(other\); got 'bolder'"):
        compile_scope(CONFIG_ARM, {"other": ("control", "bold")})
    with pytest.raises(ConfigError, match=r"rule 'r': arm: expected an arm of bolder \(control, calm\); got 'bold'"):
        compile_scope(CONFIG_ARM, {"bolder": ("control", "calm")})
    with pytest.raises(ConfigError, match=r"experiments\.bolder: the config defines an experiment of this name"):
        compile_scope("[experiments.bolder]\narms = { a = 0.5, bold = 0.5 }\n" + CONFIG_ARM, {"bolder": ("a", "bold")})
