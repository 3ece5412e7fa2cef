"""One request in all layers at once: arms, stopped arms, bundles that are not held, time and surfaces."""

import json

import pytest

from handsell.experiments.state import Canary, ExperimentState, ExperimentStates
from handsell.experiments.traffic import IN_NONE, RequestUnits, Traffic

NOW = 1_800_000_000_000_000
ARMS = "[experiments.NAME.arms.control]\nshare = 0.5\n[experiments.NAME.arms.bold]\nshare = 0.5\n"
USERS = [RequestUnits(f"u{i}") for i in range(200)]


def experiment(name: str, bold: str = "", keys: str = "") -> str:
    return f"[experiments.{name}]\n{keys}\n" + ARMS.replace("NAME", name) + bold + "\n"


@pytest.fixture
def build(configured):
    def build(*parts, states=None, held=None):
        return Traffic(configured('name = "shop"\n' + "\n".join(parts)), states, held)

    return build


def assign(traffic, surface="home", time=NOW):
    return [traffic.assign(user, surface, time) for user in USERS]


def test_arms_of_all_layers_are_taken_together(build):
    dials = build(
        experiment("dials", "reranking = { diversity = 0.5 }", 'layer = "a"'),
        experiment("weights", "weights = { als = 2.0 }\nsurface = { count = 5 }", 'layer = "b"'),
    )
    for given in assign(dials):
        arms, overlay = given.arms, json.loads(given.variant.overlay or "{}")
        assert set(arms) == {"dials", "weights"} and not given.stopped
        assert ("reranking" in overlay) == (arms["dials"] == "bold")
        assert ("weights" in overlay) == ("surfaces" in overlay) == (arms["weights"] == "bold")
        assert given.variant.arms == tuple(f"{name}={arm}" for name, arm in arms.items())
    assert len({given.variant.overlay for given in assign(dials)}) == 4


def test_equal_changes_of_different_arms_share_their_batches(build):
    same = "reranking = { diversity = 0.5 }"
    traffic = build(experiment("one", same, "share = 0.5"), experiment("two", same, "share = 0.5"))
    assert len({given.variant.overlay for given in assign(traffic)}) == 2


def test_an_experiment_runs_on_its_surfaces_between_start_and_stop(build):
    keys = 'surfaces = ["home"]\nstart = 2027-01-15T00:00:00Z\nstop = 2027-01-16T00:00:00Z'
    traffic, day = build(experiment("short", "", keys)), 86_400_000_000
    start = 1_799_971_200_000_000
    assert all(given.arms for given in assign(traffic, time=start))
    for other in (
        assign(traffic, "similar", start),
        assign(traffic, time=start - 1),
        assign(traffic, time=start + day),
    ):
        assert all(given is IN_NONE for given in other)


def test_lists_of_the_caller_are_in_experiments_whose_changes_act_there(build):
    def takes_part(bold, keys=""):
        return {bool(given.arms) for given in assign(build(experiment("one", bold, keys)), "rank")} == {True}

    assert takes_part('bundle = "b2"') and takes_part("weights = { als = 2.0 }", 'surfaces = ["rank"]')
    assert not takes_part("reranking = { diversity = 0.5 }") and not takes_part('rules = "none"')
    assert not takes_part('bundle = "b2"', 'surfaces = ["home"]')
    assert not takes_part('bundle = "b2"', 'interleave = ["control", "bold"]')
    home = build(experiment("one", 'bundle = "b2"'))
    assert [g.arms for g in assign(home, "rank")] == [g.arms for g in assign(home)], "the same arm on all surfaces"


def test_requests_without_the_unit_are_in_no_arm(build):
    traffic = build(experiment("one", "", 'unit = "session"'))
    assert traffic.assign(RequestUnits("u1", "anonymous:v"), "home", NOW) is IN_NONE
    given = traffic.assign(RequestUnits("u1", session="s"), "home", NOW)
    assert given.arms and given.units == {"one": "s"} and given.person == "u1"


def test_units_of_a_stopped_arm_get_control_and_others_stay(build):
    part = experiment("one", "reranking = { diversity = 0.5 }")
    before = assign(build(part))
    for state in (ExperimentState(stopped_arms={"bold": "broken"}), ExperimentState(stopped=True)):
        for old, new in zip(
            before, assign(build(part, states=ExperimentStates(experiments={"one": state}))), strict=True
        ):
            assert new.arms == {"one": "control"} and new.variant.overlay == ""
            assert new.stopped == ({"one": "bold"} if old.arms["one"] == "bold" else {})


def test_control_is_never_stopped(build):
    states = ExperimentStates(experiments={"one": ExperimentState(stopped_arms={"control": "a mistake"})})
    part = experiment("one", "reranking = { diversity = 0.5 }")
    assert [g.arms for g in assign(build(part, states=states))] == [g.arms for g in assign(build(part))]


def test_an_arm_whose_bundle_is_not_held_gets_control(build):
    part = experiment("one", 'bundle = "b2"')
    missing, held = assign(build(part, held=["b1"])), assign(build(part, held=["b1", "b2"]))
    assert build(part).bundles == {"b2"}
    for without, given in zip(missing, held, strict=True):
        assert without.variant.bundle is None and without.arms == {"one": "control"}
        assert given.variant.bundle == ("b2" if given.arms["one"] == "bold" else None)
        assert without.stopped == ({"one": "bold"} if given.arms["one"] == "bold" else {})
    lost = build(part, held=["b1", "b2"]).without_bundles(next(g for g in held if g.arms["one"] == "bold"))
    assert (lost.arms, lost.stopped, lost.variant.bundle) == ({"one": "control"}, {"one": "bold"}, None)


def test_the_canary_takes_no_unit_that_tests_another_bundle(build):
    about = {"live": "b1", "duration_s": 60, "min_slates": 10, "margin": 0.2}
    canary = Canary(bundle="b3", share=0.5, started_us=1, **about)
    traffic = build(experiment("one", 'bundle = "b2"'), states=ExperimentStates(canary=canary))
    found = assign(traffic)
    for given in found:
        assert ("canary" in given.arms) == (given.arms["one"] == "control")
        if "canary" in given.arms:
            assert given.variant.bundle == ("b3" if given.arms["canary"] == "candidate" else None)
    assert {given.arms.get("canary") for given in found} == {None, "control", "candidate"}
    assert traffic.bundles == {"b2", "b3"}


def test_canaries_of_other_bundles_meet_other_users_and_a_larger_share_keeps_its_own(build):
    about = {"live": "b1", "duration_s": 60, "min_slates": 10, "margin": 0.2}

    def list_candidates(bundle, share):
        traffic = build(states=ExperimentStates(canary=Canary(bundle=bundle, share=share, started_us=1, **about)))
        return {i for i, given in enumerate(assign(traffic)) if given.arms == {"canary": "candidate"}}

    first, other = list_candidates("b2", 0.2), list_candidates("b3", 0.2)
    assert 20 < len(first) < 60 and 20 < len(other) < 60
    assert len(first & other) < 0.5 * len(first), "users of one canary are in the next by chance only"
    assert list_candidates("b2", 0.1) < first < list_candidates("b2", 0.4)


def test_interleaved_units_see_both_arms(build):
    part = experiment("mix", "reranking = { diversity = 0.5 }", 'interleave = ["control", "bold"]')
    for given in assign(build(part)):
        assert given.interleaved == "mix" and given.teams == ("control", "bold") and not given.arms
        assert [bool(variant.overlay) for variant in given.variants] == [False, True]
    stopped = ExperimentStates(experiments={"mix": ExperimentState(stopped_arms={"bold": "broken"})})
    for given in assign(build(part, states=stopped)):
        assert given.interleaved is None and given.stopped == {"mix": "interleaved"}
        assert given.arms == {"mix": "control"}


def test_held_out_users_are_in_nothing(build):
    traffic = build(experiment("one", "reranking = { diversity = 0.5 }"), "[holdout]\nshare = 0.5")
    found = assign(traffic)
    held = [given for given in found if "holdout" in given.arms]
    assert 60 < len(held) < 140 and all(g.arms == {"holdout": "held_out"} and not g.variant.overlay for g in held)
    assert all(set(g.arms) == {"one"} for g in found if g not in held)


def test_nothing_is_drawn_without_experiments(build):
    traffic = build()
    assert traffic.is_empty and traffic.assign(USERS[0], "home", NOW) is IN_NONE
