"""Arms of experiments on a Ray cluster with separate stages: sticky, logged, with slates and a bundle of their own."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import serving_world
from conftest import wait_until_ready
from experiment_world import (
    BOLD,
    USERS,
    arm_config,
    change_experiments,
    expect_slate,
    item_ids,
    read_arms,
    read_logged,
    two_arms,
)  # fmt: skip
from handsell.core.paths import Layout
from handsell.experiments.state import STATE, StateFile
from serving_world import open_rows, publish_other_bundle, write_world

pytestmark = pytest.mark.slow  # tests/behavior/test_arms_served.py has the same without a cluster
PORT = 18_007


@pytest.fixture(scope="module", params=["graph", "fused"])
def tested(request, ray_cluster, tmp_path_factory):
    """A running application with three experiments, its client, and the bundle of one arm."""
    from ray import cloudpickle, serve

    from handsell.serving.http.app import AppArgs, compose

    base = write_world(tmp_path_factory.mktemp("tested"), PORT)
    other = publish_other_bundle(base, seed=41)
    parts = [
        two_arms("bolder", BOLD, share="0.5"),
        two_arms("ranker", f'bundle = "{other}"', layer='"ranker"'),
        two_arms("mix", "reranking = { same_creator_gap = 5 }", share="0.5", interleave='["control", "bold"]'),
    ]
    world = change_experiments(base, "".join(parts))
    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    args = AppArgs(config=str(world.config.source), topology=request.param)
    serve.run(compose(args, open_rows), name="tested", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client:
        wait_until_ready(client)
        wait_for_bundle(client, other)
        yield client, world, other
    serve.delete("tested")
    serve.shutdown()


def wait_for_bundle(client, bundle, limit_s=60):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if any(ask(client, user)["release"]["bundle"] == bundle for user in USERS):
            return
        time.sleep(0.3)
    raise TimeoutError("the arm's bundle does not answer")


def ask(client, user):
    answer = client.get(f"/v1/users/{user}/recommendations?count=8")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_arms_are_sticky_logged_and_have_slates_of_their_own(tested):
    client, world, other = tested
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda user: (user, ask(client, user)), USERS * 6))
    arms = {user: answer["arms"] for user, answer in answers[: len(USERS)]}
    assert all(answer["arms"] == arms[user] for user, answer in answers)
    assert {arms[user].get("bolder") for user in USERS} == {None, "control", "bold"}
    for user, answer in answers[-len(USERS) :]:
        logged = asyncio.run(read_logged(world, answer["recommendation_id"]))
        bundle = other if arms[user]["ranker"] == "bold" else world.bundle
        assert answer["degraded"] == [] and answer["release"]["bundle"] == bundle == logged["bundle"][0]
        assert {k: v for k, v in arms[user].items() if v != "interleaved"} == read_arms(logged)
        at = logged["time"][0]
        if arms[user].get("mix") == "interleaved":
            assert set(logged["teams"]) == {"control", "bold"}
            continue
        config = arm_config(world, "bolder", arms[user].get("bolder", "control"))
        assert item_ids(answer) == logged["item_id"] == expect_slate(world, config, user, at, 8, bundle)


def test_a_stopped_arm_gets_control_within_seconds(tested):
    client, world, _ = tested
    user = next(user for user in USERS if ask(client, user)["arms"].get("bolder") == "bold")
    states = StateFile(Layout(world.config.state).bundles)
    states.stop_arm("bolder", "bold", "test")
    try:
        end = time.monotonic() + 15
        while (answer := ask(client, user))["arms"]["bolder"] == "bold":
            assert time.monotonic() < end
            time.sleep(0.2)
        logged = asyncio.run(read_logged(world, answer["recommendation_id"]))
        assert logged["stopped"][0] == '{"bolder": "bold"}'
    finally:
        (Layout(world.config.state).bundles / STATE).unlink()
