"""A stage gets more replicas by its load, but not while the machine's cores are full."""

import time
from collections import namedtuple
from types import SimpleNamespace

import pytest
from ray.serve.config import AutoscalingPolicy

from handsell.serving.graph import scaling

Times = namedtuple("Times", "user system idle iowait guest")


def context(load: float, replicas: int = 1):
    """As Serve's controller gives it: load is requests under way, one to a replica is the target."""
    config = SimpleNamespace(get_target_ongoing_requests=lambda: 1, get_upscaling_factor=lambda: 1)
    return SimpleNamespace(
        total_num_requests=load, current_num_replicas=replicas, target_num_replicas=replicas, config=config,
        policy_state={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("busy", "load", "replicas", "wanted"),
    [(0.5, 3, 1, 3), (0.95, 3, 1, 1), (0.95, 1, 2, 1), (0.95, 2, 2, 2), (0.5, 1, 2, 1)],
    ids=["free: up", "full: not up", "full: down", "full: stays", "free: down"],
)
def test_full_cores_keep_a_stage_from_growing_and_from_nothing_else(monkeypatch, busy, load, replicas, wanted):
    monkeypatch.setattr(scaling, "machine_usage", lambda: SimpleNamespace(share=lambda: busy))
    assert scaling.add_where_processors_are_free(context(load, replicas))[0] == wanted


def test_cores_are_averaged_over_a_while_however_often_they_are_asked(monkeypatch):
    clock, used = [0.0], [0.0]

    def times():  # two cores: what is not used is half idle, half waiting for a disk; a guest's time is a user's too
        idle = 2 * clock[0] - used[0]
        return Times(used[0] * 0.75, used[0] * 0.25, idle / 2, idle / 2, used[0] * 0.5)

    monkeypatch.setattr(scaling.psutil, "cpu_times", times)
    monkeypatch.setattr(scaling, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    usage = scaling.ProcessorUsage()
    shares = []
    for at, share in [(0.1, 1.0), (1.9, 1.0), (2.1, 1.0), (3.0, 0.0), (4.2, 0.0), (9.0, 0.5)]:
        used[0] += 2 * share * (at - clock[0])
        clock[0] = at
        shares.append(round(usage.share(), 3))
    assert shares == [0.0, 0.0, 1.0, 1.0, 0.0, 0.5]


def test_the_policies_of_all_deployments_look_at_the_same_machine():
    path = "handsell.serving.graph.scaling:add_where_processors_are_free"
    ours = [AutoscalingPolicy(policy_function=path).get_policy() for _ in range(2)]
    assert all(policy.__globals__["machine_usage"] is scaling.machine_usage for policy in ours)


def test_this_machine_is_as_busy_as_it_is_kept(monkeypatch):
    monkeypatch.setattr(scaling, "MIN_INTERVAL_S", 0.2)
    usage, until = scaling.ProcessorUsage(), time.monotonic() + 0.4
    while time.monotonic() < until:
        pass
    assert 0.0 < usage.share() <= 1.0
