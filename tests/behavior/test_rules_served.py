"""Business rules of a deployment in answers, logs and metrics of the service."""

import time
from dataclasses import replace

import pytest

from handsell.config import load_config
from handsell.events.store.opening import open_reader
from handsell.local import rules as local_rules
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.testing.rule_catalog import write_rule
from serving_service import start_service
from serving_world import write_world

RULES = write_rule("out", "exclude", items="'red' in item.tags", surfaces=["email"]) + write_rule(
    "here", "pin", items="item.item_id == 'i44'", position=3
)
ASK = "/v1/users/u1/recommendations"


@pytest.fixture
def world(tmp_path):
    world = write_world(tmp_path)
    path = world.config.source
    path.write_text(path.read_text().replace("[ranking]", '[reranking]\nrules = "rules.toml"\n[ranking]', 1))
    text = path.read_text().replace("[serving]", "[serving]\nbundle_check_s = 0.05", 1)
    path.write_text(text)
    (tmp_path / "rules.toml").write_text(RULES)
    return replace(world, config=load_config(path))


async def test_rules_are_applied_named_logged_and_reloaded(world, tmp_path):
    async with start_service(world) as (client, service):
        answer = (await client.get(ASK, params={"surface": "email", "count": 10})).json()
        ids = [item["item_id"] for item in answer["items"]]
        assert ids[2] == "i44" and all(int(i[1:]) % 2 == 0 for i in ids) and len(ids) == 10
        assert answer["degraded"] == []
        first = answer["release"]["rules"]
        assert f'handsell_rules_info{{version="{first}"}} 1.0' in (await client.get("/metrics")).text
        (tmp_path / "rules.toml").write_text("[[rule]]\nname = 3")
        told = await until(client, lambda _, metrics: "handsell_rules_refused{" in metrics)
        assert told["release"]["rules"] == first
        (tmp_path / "rules.toml").write_text(write_rule("there", "pin", items="item.item_id == 'i46'", position=1))
        told = await until(client, lambda answer, _: answer["release"]["rules"] != first)
        assert told["items"][0]["item_id"] == "i46"
        assert "handsell_rules_refused{" not in (await client.get("/metrics")).text
        await service.close()
    logged = open_reader(world.config).read_impressions()
    assert set(logged["rules"]) == {first, told["release"]["rules"]}


async def until(client, holds):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        answer = (await client.get(ASK, params={"surface": "email"})).json()
        if holds(answer, (await client.get("/metrics")).text):
            return answer
    raise AssertionError("it did not come about within 10 s")


async def test_a_pin_that_cannot_hold_is_reported(world, tmp_path):
    (tmp_path / "rules.toml").write_text(
        write_rule("gone", "pin", items="item.item_id == 'i7'", position=1)
    )  # not available
    async with start_service(world) as (client, _):
        answer = (await client.get(ASK)).json()
        assert answer["relaxed"][-1:] == ["rule:gone"] and len(answer["items"]) == 10


def test_a_replica_does_not_start_with_invalid_rules(world, tmp_path):
    (tmp_path / "rules.toml").write_text(write_rule("typo", "exclude", items="item.titel == 'x'"))
    with pytest.raises(Exception, match=r"rule 'typo': items: column 1: .*item\.title"):
        load_local_stages(open_bundle(str(world.config.source), "live"))


async def test_a_preview_answers_recorded_requests_with_both(world, tmp_path, monkeypatch):
    async with start_service(world) as (client, service):
        for user in ("u1", "u2", "u3", "u4"):
            await client.get(f"/v1/users/{user}/recommendations", params={"surface": "email", "count": 6})
        await service.close()
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace("i44", "i46"))
    told = await preview(world, new, monkeypatch)
    assert (told["requests"], told["recorded"], told["changed_slates"]) == (4, True, 4)
    assert told["impressions"] == {"before": 24, "after": 24}
    winner = told["items"]["winners"][0]  # some slates may have it without the pin
    assert (winner["id"], winner["after"]) == ("i46", 4) and winner["change"] == 4 - winner["before"] > 1
    assert told["items"]["losers"][0]["id"] == "i44"
    assert [s["after"][2]["item_id"] for s in told["slates"]] == ["i46"] * 3
    assert told["slates"][0]["after"][2]["rules"] == ["here"]
    assert told["by_rule"][1] == {
        "rule": "here", "kind": "pin", "requests": 4, "before": pytest.approx(winner["before"] / 24),
        "after": pytest.approx(1 / 6), "could_not_hold": 0,
    }  # fmt: skip
    same = await preview(world, tmp_path / "rules.toml", monkeypatch)
    assert same["changed_slates"] == 0 and same["mean_score"]["loss"] == 0


async def preview(world, path, monkeypatch):
    import asyncio

    monkeypatch.setattr(local_rules, "open_store", lambda config: world.store())
    return await asyncio.to_thread(
        lambda: local_rules.summarize_preview(local_rules.preview_rules(world.config, path, 100))
    )
