"""Guard rails: broken arms are stopped within seconds by the rail that names the cause, healthy ones are not."""

from collections import Counter

import numpy as np
import pytest

from handsell.serving.guard_rails.config import GuardRails
from handsell.serving.guard_rails.counts import OutcomeCounter, SlateOutcome, find_class, merge_counts
from handsell.serving.guard_rails.first_slates import CLICK, Finished
from handsell.serving.guard_rails.rails import ArmRails

USERS = 400


def play(rng, steps, rails=None, share=0.2, requests=60, begin=0, **broken):
    """Play steps of requests through a gateway's counter; return (step, reason) of the first stop, or None.

    `broken` are functions that return a field of SlateOutcome for an answer of the arm from step `begin` on.
    """
    counter, guarded = OutcomeCounter(), rails or ArmRails(GuardRails())
    for step in range(steps):
        for user in rng.integers(0, USERS, requests):
            arm = "bold" if user < share * USERS else "control"
            outcome = {
                "seconds": rng.lognormal(-4, 0.5), "degraded": rng.random() < 0.01, "items": 10, "requested": 10,
                "diversity": rng.beta(8, 4), "failed": False,
            }  # fmt: skip
            if arm == "bold" and step >= begin:
                outcome |= {name: draw(outcome) for name, draw in broken.items()}
            counter.record({"bolder": arm}, SlateOutcome(int(user) + 1, **outcome))
        counts = counter.take()
        guarded.add(counts.get(("bolder", "bold")), counts.get(("bolder", "control")))
        if reason := guarded.find_violation():
            return step, reason
    return None


@pytest.mark.parametrize(
    ("rail", "broken", "within"),
    [
        ("errors", {"failed": lambda _: True}, 15),
        ("degraded", {"degraded": lambda _: True}, 15),
        ("latency", {"seconds": lambda o: 10 * o["seconds"]}, 30),
        ("short", {"items": lambda _: 0}, 30),
        ("diversity", {"diversity": lambda o: 0.3 * o["diversity"]}, 30),
    ],
)
def test_a_broken_arm_is_stopped_and_the_reason_names_the_cause(rng, rail, broken, within):
    stopped = play(rng, within, **broken)
    assert stopped is not None and stopped[1].startswith(f"{rail}: "), stopped


def test_an_arm_that_breaks_after_an_hour_is_stopped_within_seconds(rng):
    step, reason = play(rng, 1_030, begin=1_000, requests=20, degraded=lambda _: True)
    assert 1_000 <= step < 1_030 and reason.startswith("degraded: ")


def test_half_of_the_answers_broken_are_enough(rng):
    assert play(rng, 60, failed=lambda _: rng.random() < 0.5)[1].startswith("errors: ")


def test_a_failure_that_hits_both_arms_stops_none(rng):
    rails, counter = ArmRails(GuardRails()), OutcomeCounter()
    for step in range(120):
        for user in rng.integers(0, USERS, 40):
            bad = 20 <= step < 60 and rng.random() < 0.7  # a stage is away for both
            arm = "bold" if user < 80 else "control"
            counter.record({"bolder": arm}, SlateOutcome(int(user) + 1, 2.0 if bad else 0.02, degraded=bad, items=10))
        counts = counter.take()
        rails.add(counts["bolder", "bold"], counts["bolder", "control"])
        assert rails.find_violation() is None


def test_one_lost_batch_or_one_robot_stops_no_arm(rng):
    rails, counter = ArmRails(GuardRails()), OutcomeCounter()
    for step in range(100):
        for user in range(1, 41):
            arm = "bold" if user % 4 == 0 else "control"
            robot = user == 4  # its own filter leaves nothing
            lost = arm == "bold" and step == 50
            for _ in range(20 if robot else 1):
                outcome = SlateOutcome(user, 0.02, failed=lost, degraded=robot, items=0 if robot else 10, requested=10)
                counter.record({"bolder": arm}, outcome)
        counts = counter.take()
        rails.add(counts["bolder", "bold"], counts["bolder", "control"])
        assert rails.find_violation() is None, step


def test_a_loss_of_clicks_is_stopped_and_a_gain_is_not(rng):
    def follow(arm, event=CLICK, **settings):
        rails = ArmRails(GuardRails(**settings))
        for _ in range(60):
            rails.add_finished(*(Finished(40, Counter({event: int(rng.binomial(40, p))})) for p in (arm, 0.2)))
        return rails.find_violation()

    assert follow(0.03).startswith("clicks: a click follows ")
    assert follow(0.3) is None and follow(0.19) is None
    assert follow(0.03, max_click_loss=1.0) is None, "a limit of 1 is none"
    assert follow(0.03, "like", max_event_loss={"like": 0.5}).startswith("like: like follows ")
    assert follow(0.03, enabled=False) is None


def test_a_healthy_arm_is_stopped_at_most_at_the_stated_level(rng):
    """Users differ, come back, and have latencies and failures in bursts; the level is raised to be visible."""
    stopped = 0
    for _ in range(20):
        rails = ArmRails(GuardRails(false_stops=0.2))
        stopped += play(rng, 60, rails, requests=25) is not None
    assert stopped <= 4


def test_lists_of_the_caller_are_no_first_slates():
    counter = OutcomeCounter()
    counter.record({"a": "x"}, SlateOutcome(1, 0.02, degraded=True, requested=0))
    counter.record({"a": "x"}, SlateOutcome(1, 0.02, items=1, requested=10))
    (one,) = counter.take().values()
    assert (one.slates, one.first_slates, one.short) == (2, 1, 1) and one.share_failed("degraded") == 1


def test_counts_of_gateways_add_up_and_units_count_once():
    first, second = OutcomeCounter(), OutcomeCounter()
    for counter in (first, second):
        for unit in (1, 2, 2):
            counter.record({"a": "x", "b": "y"}, SlateOutcome(unit, 0.02, degraded=unit == 2, items=3, requested=10))
    merged = merge_counts({}, [first.take(), second.take()])
    assert set(merged) == {("a", "x"), ("b", "y")}
    one = merged["a", "x"]
    assert one.slates == 6 and one.units == {1, 2} and one.share_failed("degraded") == 0.5
    assert one.first_slates == one.short == 4, "each gateway knows its own first slates"
    assert first.take() == {}


def test_counts_that_were_not_reported_come_with_the_next_report():
    counter = OutcomeCounter()
    counter.record({"a": "x"}, SlateOutcome(1, 0.02))
    counter.put_back(counter.take())
    counter.record({"a": "x"}, SlateOutcome(2, 0.02))
    assert counter.take()["a", "x"].units == {1, 2}


def test_latency_classes_rise_with_latency():
    found = [find_class(seconds) for seconds in (0, 1e-5, 0.001, 0.01, 0.1, 1, 10, 1e9)]
    assert found == sorted(found) and found[0] == 0
    assert np.isclose(find_class(0.2) - find_class(0.1), 7, atol=1)
