"""Arms of experiments over HTTP: sticky, logged, counted, and with slates of their own."""

import asyncio
import contextlib
import json
from functools import partial

import numpy as np
import pytest

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
    write_experiments,
)  # fmt: skip
from handsell.events.merged_visitors import MergedVisitors
from handsell.events.store.opening import open_reader
from handsell.experiments.state import Canary, ExperimentState, ExperimentStates, now_us
from handsell.serving.changes.identities import Identities
from handsell.testing.rule_catalog import write_rule
from serving_service import load_world_bundle, start_service
from serving_world import publish_other_bundle


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_experiments(tmp_path_factory.mktemp("shop"), "")


@pytest.fixture
def world(base):
    return change_experiments(base, two_arms("bolder", BOLD))


async def ask(client, user_id=None, **more):
    body = {"count": 8, **more} | ({} if user_id is None else {"user_id": user_id})
    answer = await client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_slate_of_each_arm_is_that_of_the_funnel_with_its_settings(world):
    differ = 0
    async with start_service(world) as (client, _):
        answers = await asyncio.gather(*(ask(client, user) for user in USERS))
        for user, answer in zip(USERS, answers, strict=True):
            arm = answer["arms"]["bolder"]
            logged = await read_logged(world, answer["recommendation_id"])
            assert answer["degraded"] == [] and read_arms(logged) == {"bolder": arm}
            slates = {
                name: expect_slate(world, arm_config(world, "bolder", name), user, logged["time"][0], 8)
                for name in ("control", "bold")
            }
            assert item_ids(answer) == slates[arm] == logged["item_id"]
            differ += slates["control"] != slates["bold"]
    assert differ > 12 and {answer["arms"]["bolder"] for answer in answers} == {"control", "bold"}


async def test_arms_are_sticky_and_the_same_on_another_gateway(world):
    async with start_service(world) as (client, _):
        first = {user: (await ask(client, user))["arms"] for user in USERS}
        assert {user: (await ask(client, user, count=3))["arms"] for user in USERS} == first
        query = (await client.get("/v1/users/u1/recommendations")).json()
        assert query["arms"] == first["u1"]
    async with start_service(world) as (client, _):
        assert {user: (await ask(client, user))["arms"] for user in USERS} == first


async def test_without_experiments_nothing_is_said_of_arms(base):
    world = change_experiments(base, "")
    async with start_service(world) as (client, _):
        answer = await ask(client, "u1")
        logged = await read_logged(world, answer["recommendation_id"])
        metrics = (await client.get("/metrics")).text
    assert "arms" not in answer and logged["arms"][0] is None and "handsell_experiment_requests_total{" not in metrics


async def test_requests_errors_latency_and_degraded_answers_are_counted_by_arm(world):
    async with start_service(world) as (client, service):
        arms = [(await ask(client, user))["arms"]["bolder"] for user in USERS]

        async def fail(*_):
            raise ConnectionError("no stage answers")

        inner, service.bundle.stages.call = service.bundle.stages.call, fail
        assert (await ask(client, "u1"))["degraded"]
        service.bundle.stages.call = inner
        service.bundle.recommend = fail
        assert (await client.get("/v1/users/u1/recommendations")).status_code == 500
        assert (await client.get("/v1/users/u1/recommendations?surface=none")).status_code == 422
        text = (await client.get("/metrics")).text
    arm = arms[1]
    for name in ("control", "bold"):
        more = 2 * (name == arm)
        assert (
            f'handsell_experiment_requests_total{{arm="{name}",experiment="bolder"}} {arms.count(name) + more}.0'
            in text
        )
        assert f'handsell_experiment_seconds_count{{arm="{name}",experiment="bolder"}}' in text
    assert f'handsell_experiment_errors_total{{arm="{arm}",experiment="bolder"}} 1.0' in text
    assert f'handsell_experiment_degraded_total{{arm="{arm}",experiment="bolder"}} 1.0' in text


async def test_layers_are_independent_and_experiments_of_one_exclude_each_other(base):
    parts = [
        two_arms("one", BOLD, share="0.5"),
        two_arms("two", BOLD, share="0.5"),
        two_arms("three", "surface = { count = 4 }", layer='"count"', surfaces='["home"]'),
    ]
    world = change_experiments(base, "".join(parts))
    async with start_service(world) as (client, _):
        answers = [(await client.get(f"/v1/users/u{i}/recommendations")).json() for i in range(60)]
        email = (await client.get("/v1/users/u1/recommendations?surface=email")).json()
    for answer in answers:
        assert {"one", "two", "three"} - set(answer["arms"]) in ({"one"}, {"two"})
        assert len(answer["items"]) == (4 if answer["arms"]["three"] == "bold" else 10)
    found = {(name, *(a["arms"].get(name, ""), a["arms"]["three"])) for a in answers for name in ("one", "two")}
    assert len({one for one in found if one[1]}) == 8, "each arm of a layer meets each of the other"
    assert set(email["arms"]) in ({"one"}, {"two"})


async def test_a_stopped_arm_gets_control_and_the_impression_says_so(world):
    async with start_service(world) as (client, service):
        before = {user: await ask(client, user) for user in USERS}
        states = ExperimentStates(experiments={"bolder": ExperimentState(stopped_arms={"bold": "it is broken"})})
        service.set_experiment_states(states)
        for user, answer in before.items():
            after = await ask(client, user)
            logged = await read_logged(world, after["recommendation_id"])
            assert after["arms"] == read_arms(logged) == {"bolder": "control"}
            stopped = None if answer["arms"]["bolder"] == "control" else '{"bolder": "bold"}'
            assert logged["stopped"][0] == stopped
            assert item_ids(after) == expect_slate(world, world.config, user, logged["time"][0], 8)
        service.set_experiment_states(ExperimentStates())
        assert {user: (await ask(client, user))["arms"] for user in USERS} == {u: a["arms"] for u, a in before.items()}


async def test_the_holdout_gets_control_of_everything(base):
    world = change_experiments(base, two_arms("bolder", BOLD) + "[holdout]\nshare = 0.4\n")
    async with start_service(world) as (client, _):
        answers = {f"u{i}": await ask(client, f"u{i}") for i in range(40)}
        held = [user for user, answer in answers.items() if answer["arms"] == {"holdout": "held_out"}]
        assert 8 <= len(held) <= 24
        for user in set(held) & set(USERS):
            logged = await read_logged(world, answers[user]["recommendation_id"])
            assert item_ids(answers[user]) == expect_slate(world, world.config, user, logged["time"][0], 8)
        assert {a["arms"].get("bolder") for a in answers.values()} == {None, "control", "bold"}


async def test_a_visitor_who_becomes_a_user_keeps_the_arm(world):
    async with start_service(world) as (client, _):
        visitors = [f"v{i}" for i in range(12)]
        before = {v: (await ask(client, anonymous_id=v))["arms"]["bolder"] for v in visitors}
        own = {v: (await ask(client, f"person {v}"))["arms"]["bolder"] for v in visitors}
        assert before != own
        for v in visitors:
            merged = await client.post("/v1/identities/merge", json={"visitor_id": v, "user_id": f"person {v}"})
            assert merged.status_code == 200
        for v in visitors:
            assert (await ask(client, f"person {v}"))["arms"]["bolder"] == before[v]
            assert (await ask(client, anonymous_id=v))["arms"]["bolder"] == before[v]
        late = await client.post("/v1/identities/merge", json={"visitor_id": "v99", "user_id": "person v0"})
        assert late.status_code == 200 and (await ask(client, "person v0"))["arms"]["bolder"] == before["v0"]
        other = Identities(partial(open_reader, world.config))  # of another gateway
        for _ in range(100):
            if other.find_first_visitor("person v0") == "anonymous:v0":
                break
            await asyncio.sleep(0.05)
        assert [other.find_first_visitor(f"person {v}") for v in visitors] == [f"anonymous:{v}" for v in visitors]
        other.close()


async def test_an_account_that_was_used_before_its_first_merge_keeps_its_arm(world):
    async with start_service(world) as (client, _):
        users = {f"account {i}": f"late {i}" for i in range(10)}
        before = {user: await ask(client, user) for user in users}
        for answer in before.values():
            await read_logged(world, answer["recommendation_id"])
        visitors = {user: (await ask(client, anonymous_id=visitor))["arms"] for user, visitor in users.items()}
        assert visitors != {user: answer["arms"] for user, answer in before.items()}
        for user, visitor in users.items():
            merged = await client.post("/v1/identities/merge", json={"visitor_id": visitor, "user_id": user})
            assert merged.status_code == 200
            for who in ({"user_id": user}, {"anonymous_id": visitor}):
                assert (await ask(client, **who))["arms"] == before[user]["arms"]
        with contextlib.closing(open_reader(world.config)) as reader:
            merged_on_another_gateway = MergedVisitors.read(reader)
        assert [merged_on_another_gateway.find_unit(f"anonymous:{visitor}") for visitor in users.values()] == [*users]


async def test_sessions_and_visitors_are_units_of_their_own(base):
    parts = [
        two_arms("by_session", BOLD, unit='"session"'),
        two_arms("by_visitor", "surface = { count = 4 }", unit='"visitor"', layer='"other"'),
    ]
    world = change_experiments(base, "".join(parts))
    async with start_service(world) as (client, _):
        assert "arms" not in await ask(client, "u1")
        session = {i: (await ask(client, f"u{i}", session_id="s1"))["arms"] for i in range(3)}
        assert len({arms["by_session"] for arms in session.values()}) == 1
        found = {(await ask(client, "u1", session_id=f"s{i}"))["arms"]["by_session"] for i in range(12)}
        assert found == {"control", "bold"}
        both = await ask(client, "u1", session_id="s1", anonymous_id="phone")
        alone = await ask(client, anonymous_id="phone")
        assert both["arms"]["by_visitor"] == alone["arms"]["by_visitor"]
        logged = await read_logged(world, both["recommendation_id"])
        assert json.loads(logged["units"][0]) == {"by_session": "s1", "by_visitor": "anonymous:phone"}
        query = (await client.get("/v1/users/u1/recommendations?session_id=s1")).json()
        assert query["arms"]["by_session"] == session[0]["by_session"]


async def test_an_arm_answers_from_its_own_bundle_once_that_is_held(base):
    other = publish_other_bundle(base, seed=31)
    world = change_experiments(base, two_arms("ranker", f'bundle = "{other}"'))
    async with start_service(world) as (client, service):
        waiting = {user: await ask(client, user) for user in USERS}
        assert {a["arms"]["ranker"] for a in waiting.values()} == {"control"}, "the bundle is not loaded yet"
        service.arm_bundles = {other: load_world_bundle(world, service.metrics, other)}
        answers = {user: await ask(client, user) for user in USERS}
        assert {a["arms"]["ranker"] for a in answers.values()} == {"control", "bold"}
        for user, answer in answers.items():
            bundle = other if answer["arms"]["ranker"] == "bold" else world.bundle
            logged = await read_logged(world, answer["recommendation_id"])
            assert answer["release"]["bundle"] == bundle == logged["bundle"][0]
            assert item_ids(answer) == expect_slate(world, world.config, user, logged["time"][0], 8, bundle)
            first = await read_logged(world, waiting[user]["recommendation_id"])
            assert (first["stopped"][0] is not None) == (bundle == other), "units of the arm are told apart"


async def test_an_arm_has_its_own_rules_and_rules_refer_to_arms(base, tmp_path):
    folder = base.config.source.parent
    (folder / "bold.toml").write_text(write_rule("pinned", "pin", items="item.item_id == 'i44'", position=2))
    shared = write_rule("for_bold", "pin", items="item.item_id == 'i46'", position=1, experiment="marked", arm="bold")
    (folder / "all.toml").write_text(shared)
    toml = two_arms("ruled", 'rules = "bold.toml"') + two_arms("marked", "", layer='"marks"')
    path = base.config.source
    text = path.read_text()
    path.write_text(text.replace("[ranking]", '[reranking]\nrules = "all.toml"\n[ranking]', 1))
    try:
        world = change_experiments(base, toml)
        seen = set()
        async with start_service(world) as (client, _):
            for i in range(60):
                answer = await ask(client, f"new {i}")
                ids, arms = item_ids(answer), answer["arms"]
                assert answer["degraded"] == []
                if arms["ruled"] == "bold":
                    assert ids[1] == "i44"
                else:
                    assert (ids[0] == "i46") == (arms["marked"] == "bold")
                seen.add((arms["ruled"], arms["marked"]))
        assert len(seen) == 4
    finally:
        path.write_text(text)


async def test_settings_that_fail_degrade_the_arm_alone(base):
    world = change_experiments(base, two_arms("ruled", 'rules = "missing.toml"'))
    async with start_service(world) as (client, _):
        for user in USERS:
            answer = await ask(client, user)
            assert answer["degraded"] == (["reranking"] if answer["arms"]["ruled"] == "bold" else [])
            assert len(answer["items"]) == 8


async def test_similar_items_are_shown_to_somebody_in_an_arm(base):
    parts = [
        two_arms("bolder", BOLD, surfaces='["similar"]'),
        two_arms("at_home", BOLD, surfaces='["home"]', layer='"h"'),
    ]
    world, by_arm = change_experiments(base, "".join(parts)), {}
    async with start_service(world) as (client, _):

        async def list_similar(**more):
            answer = await client.get("/v1/items/i3/similar", params={"count": 8, **more})
            assert answer.status_code == 200, answer.text
            return answer.json()

        nobody = await list_similar()
        assert "arms" not in nobody
        for who in ({"user_id": "u1"}, *({"anonymous_id": f"v{i}"} for i in range(11))):
            answer = await list_similar(**who)
            logged = await read_logged(world, answer["recommendation_id"])
            name = who.get("user_id") or f"anonymous:{who['anonymous_id']}"
            assert set(logged["user_id"]) == {name} and read_arms(logged) == answer["arms"]
            by_arm.setdefault(answer["arms"]["bolder"], []).append(item_ids(answer))
    assert set(by_arm) == {"control", "bold"} and by_arm["control"][0] == item_ids(nobody) != by_arm["bold"][0]
    assert all(items == of_arm[0] for of_arm in by_arm.values() for items in of_arm), "nothing else depends on the user"


async def test_a_list_of_the_caller_is_ranked_by_the_bundle_of_the_arm(base):
    other = publish_other_bundle(base, seed=33)
    parts = [two_arms("ranker", f'bundle = "{other}"'), two_arms("bolder", BOLD, layer='"b"')]
    world, orders = change_experiments(base, "".join(parts)), {}
    async with start_service(world) as (client, service):
        service.arm_bundles = {other: load_world_bundle(world, service.metrics, other)}
        for i in range(10):
            session = {"events": [{"type": "play", "item_id": "i21"}]}  # the ranker orders for people with an event
            body = {"user_id": f"new {i}", "item_ids": [f"i{n}" for n in range(20)], "shown": 3, "session": session}
            answer = (await client.post("/v1/rank", json=body)).json()
            arm, slate = answer["arms"]["ranker"], await ask(client, f"new {i}")
            assert answer["arms"] == {"ranker": arm} and slate["arms"]["ranker"] == arm, "dials of a slate do not act"
            assert answer["release"]["bundle"] == (other if arm == "bold" else world.bundle)
            logged = await read_logged(world, answer["recommendation_id"])
            assert (logged["item_id"], logged["surface"][0]) == (item_ids(answer)[:3], "rank")
            assert read_arms(logged) == {"ranker": arm} and logged["bundle"][0] == answer["release"]["bundle"]
            orders.setdefault(arm, item_ids(answer))
        del body["shown"]
        assert "recommendation_id" not in (await client.post("/v1/rank", json=body)).json()
    assert set(orders) == {"control", "bold"} and orders["control"] != orders["bold"]


async def test_an_item_is_explained_in_the_users_arm(world):
    async with start_service(world) as (client, _):
        for user in USERS[:8]:
            answer = await ask(client, user)
            query = {"user_id": user, "item_id": answer["items"][3]["item_id"], "count": 8}
            explained = (await client.get("/v1/explain", params=query)).json()
            assert (explained["outcome"], explained["position"]) == ("shown", 4), answer["arms"]


async def test_interleaved_slates_have_both_arms_items_in_draft_order(base):
    world = change_experiments(base, two_arms("mix", BOLD, interleave='["control", "bold"]'))
    both = 0
    async with start_service(world) as (client, _):
        for user in USERS:
            answer = await ask(client, user)
            assert answer["arms"] == {"mix": "interleaved"} and answer["degraded"] == []
            logged = await read_logged(world, answer["recommendation_id"])
            assert logged["item_id"] == item_ids(answer) and set(logged["interleaved"]) == {"mix"}
            assert logged["arms"][0] is None
            rankings = {
                arm: expect_slate(world, arm_config(world, "mix", arm), user, logged["time"][0], 8)
                for arm in ("control", "bold")
            }
            check_draft(item_ids(answer), logged["teams"], rankings)
            fair = [0.5, 1.0]
            assert all(chance in fair for chance in logged["propensity"])
            both += len(set(logged["teams"])) == 2
        assert both == len(USERS)
        metrics = (await client.get("/metrics")).text
    assert 'handsell_experiment_requests_total{arm="interleaved",experiment="mix"} 18.0' in metrics


def check_draft(items: list[str], teams: list[str], rankings: dict[str, list[str]]) -> None:
    """Each team picks its best item that is not in the slate; it never has more than one item more than the other."""
    picked, counts = [], dict.fromkeys(rankings, 0)
    for item, team in zip(items, teams, strict=True):
        assert item == next(one for one in rankings[team] if one not in picked)
        picked.append(item)
        counts[team] += 1
        assert abs(np.diff(list(counts.values()))[0]) <= 1


async def test_the_canary_is_an_experiment_of_all_users(base):
    other = publish_other_bundle(base, seed=32)
    world = change_experiments(base, "")
    about = {"live": world.bundle, "duration_s": 60, "min_slates": 10, "margin": 0.2}
    async with start_service(world) as (client, service):
        service.arm_bundles = {other: load_world_bundle(world, service.metrics, other)}
        canary = Canary(bundle=other, share=0.3, started_us=now_us(), **about)
        service.set_experiment_states(ExperimentStates(canary=canary))
        answers = [await ask(client, f"u{i}") for i in range(60)]
        assert 8 <= sum(a["arms"] == {"canary": "candidate"} for a in answers) <= 30
        for answer in answers:
            assert answer["release"]["bundle"] == (other if answer["arms"]["canary"] == "candidate" else world.bundle)
        service.set_experiment_states(ExperimentStates(canary=canary.model_copy(update={"state": "rolled_back"})))
        assert "arms" not in await ask(client, "u1")
