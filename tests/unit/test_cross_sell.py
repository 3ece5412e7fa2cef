"""Cross-sell: what is bought with the basket comes, in that order; the basket itself and its substitutes do not."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.config import load_config
from handsell.core.batches import NONE
from handsell.core.errors import ConfigError
from serving_service import start_service
from serving_world import write_world

SHOP = """
[surfaces.cross_sell]
repeat = "allow"
only = ["bought_together"]
ranked = false
substitutes = "KIND"
[retrieval.bought_together]
enabled = true
min_weight = 2.0
min_support = 1
session_gap_minutes = 10000
"""


def shop(folder, monkeypatch, kind="keep"):
    """`write_world` fits every enabled source: its config needs the surface from the beginning."""
    import serving_world

    extra = SHOP.replace("KIND", kind)
    monkeypatch.setattr(serving_world, "TOML", serving_world.TOML.replace("[retrieval]\n", f"{extra}\n[retrieval]\n"))
    return write_world(folder)


async def ask(client, basket, **more):
    body = {"surface": "cross_sell", "count": 10, "basket": {"item_ids": basket}} | more
    answer = await client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_companions_of_the_basket_come_in_their_order(tmp_path, monkeypatch):
    world = shop(tmp_path, monkeypatch)
    async with start_service(world) as (client, service):
        retriever = service.bundle.stages.candidates.retrievers["bought_together"]
        one = await ask(client, ["i90"])
        assert one["items"] and "i90" not in [i["item_id"] for i in one["items"]]
        assert all(i["sources"] == ["bought_together"] for i in one["items"])
        scores = [i["score"] for i in one["items"]]
        assert len(set(scores)) > 1
        companions = set(retriever.lists.indices[retriever.lists.indptr[90] : retriever.lists.indptr[91]].tolist())
        assert {int(i["item_id"][1:]) for i in one["items"]} <= companions
        two = await ask(client, ["i3", "i90"], count=30)
        assert not {"i3", "i90"} & {i["item_id"] for i in two["items"]}
        assert {i["item_id"] for i in two["items"]} - {i["item_id"] for i in one["items"]}
        assert (await ask(client, ["nowhere"]))["items"] == []  # nothing goes with what nobody knows
        home = await ask(client, ["i90"], surface="home")
        assert any("popularity" in i["sources"] for i in home["items"])  # other surfaces ask every source
        story = (await client.get("/v1/explain?user_id=u1&item_id=i3&surface=cross_sell")).json()
        assert story["ranking"]["contributions"] == []


@pytest.mark.parametrize("kind", ["same_creator", "same_tag"])
async def test_substitutes_stay_away(tmp_path, monkeypatch, kind):
    world = shop(tmp_path, monkeypatch, kind)
    shelf = world.snapshot
    basket = next(i for i in range(60, 120) if shelf.creator[i] != NONE and len(shelf.item_tags.row(i)) == 1)

    def substitute(item: int) -> bool:
        if kind == "same_creator":
            return shelf.creator[item] == shelf.creator[basket]
        return len(np.intersect1d(shelf.item_tags.row(item), shelf.item_tags.row(basket))) > 0

    async with start_service(world) as (client, _):
        found = [int(i["item_id"][1:]) for i in (await ask(client, [f"i{basket}"], count=30))["items"]]
        assert found and not any(map(substitute, found))
        kept = [
            int(i["item_id"][1:]) for i in (await ask(client, [f"i{basket}"], surface="similar", count=30))["items"]
        ]
        assert any(map(substitute, kept))


def test_a_surface_names_sources_that_are_on(tmp_path, monkeypatch):
    world = shop(tmp_path, monkeypatch)
    source = world.config.source
    source.write_text(source.read_text().replace('only = ["bought_together"]', 'only = ["ease"]'))
    with pytest.raises(ConfigError, match=r"surfaces\.cross_sell\.only has ease: expected enabled sources \(pop"):
        replace(world, config=load_config(source))


async def test_a_basket_is_checked(tmp_path, monkeypatch):
    async with start_service(shop(tmp_path, monkeypatch)) as (client, _):
        for basket in ({"item_ids": []}, {"item_ids": ["x"] * 101}, {"items": ["i1"]}, ["i1"]):
            answer = await client.post("/v1/recommendations", json={"basket": basket})
            assert answer.status_code == 422 and answer.json()["errors"][0]["field"].startswith("basket")
