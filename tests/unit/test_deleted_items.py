"""A deleted item, which is unavailable in the catalog, is shown nowhere; histories and questions about it stay valid.

tests/faults/test_degradation.py covers the fallback.
"""

import numpy as np
import pytest

from handsell.data.alignment import find_present
from serving_service import start_service
from serving_world import write_world

DELETED = "i7"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.mark.parametrize(
    ("listed", "recommend_deleted", "present"),
    [
        ([1, 0, 1, 0], False, [1, 0, 1, 0]),
        ([1, 0, 1, 0], True, [1, 1, 1, 0]),  # the last one has neither a row nor events
        ([0, 0, 0, 0], False, [1, 1, 0, 0]),  # no items table
    ],
)
def test_items_without_a_row_are_deleted_where_there_is_an_items_table(listed, recommend_deleted, present):
    used = np.array([1, 1, 0, 0], bool)
    assert find_present(np.array(listed, bool), used, recommend_deleted).tolist() == [bool(p) for p in present]


async def test_a_deleted_item_is_in_no_list(world):
    async with start_service(world) as (client, _):
        event = {"type": "like", "item_id": DELETED, "user_id": "keen"}
        for _ in range(3):
            assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
        paths = [
            *(f"/v1/users/{user}/recommendations?count=30&surface=email" for user in ("u1", "keen", "new")),
            "/v1/items/i8/similar?count=30",
            "/v1/popular?count=30",
            "/v1/trending?count=30",
        ]
        for path in paths:
            answer = (await client.get(path)).json()
            shown = {item["item_id"] for item in answer["items"]}
            assert len(shown) == 30 and DELETED not in shown, path


async def test_items_similar_to_a_deleted_one_are_listed(world):
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/similar", params={"item_id": DELETED, "count": 5})
        assert answer.status_code == 200
        shown = [item["item_id"] for item in answer.json()["items"]]
        assert len(shown) == 5 and DELETED not in shown
        missing = await client.get("/v1/similar", params={"item_id": "never heard of"})
        assert missing.status_code == 404


async def test_no_reason_names_a_deleted_or_unavailable_item(world):
    async with start_service(world) as (client, service):
        likes = [{"type": "like", "item_id": item, "user_id": "keen"} for item in (DELETED, "i90", "i91")]
        await client.post("/v1/events", json={"events": likes})

        async def list_named():
            answer = await client.get("/v1/users/keen/recommendations?count=30")
            assert len(answer.json()["items"]) == 30
            return {item["reason"].get("item_id") for item in answer.json()["items"]}

        assert {"i90", "i91"} <= await list_named() and DELETED not in await list_named()
        await client.delete("/v1/items/i90")
        await client.patch("/v1/items/i91", json={"available": False})
        service.bundle.catalog.read()  # as the thread does every second
        assert not {DELETED, "i90", "i91"} & await list_named()
