"""What users do over HTTP trains the next bundle, in which a new user is warm and a new item has neighbors."""

import contextlib
import json

import httpx
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.jobs.ingest.ingest import prepare
from handsell.jobs.pipeline import run_pipeline
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.api import build_api
from serving_service import build_service

pytestmark = pytest.mark.slow  # trains twice

ITEM, USER = "fresh-song", "newcomer"
COLLABORATIVE = {"item_knn", "als", "two_tower"}
FANS = 40


@pytest.fixture(scope="module")
def deployed(deployment, tmp_path_factory):
    """A copy of the deployment whose users do something over HTTP, and what the service answered meanwhile."""
    return deployment.copy(tmp_path_factory.mktemp("loop"))


@contextlib.asynccontextmanager
async def start_gateway(deployed):
    """Serve the live bundle with the real feature store; the event store stays from one service to the next."""
    with SqliteWriter(Layout(deployed.config.state).event_log) as log:
        service = build_service(deployed, LocalSink(log))
        transport = httpx.ASGITransport(build_api(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", timeout=60) as client:
            yield client
        await service.close()


def list_users_and_items(deployed) -> tuple[list[str], list[str]]:
    """The most active users, and the items that most people listen to."""
    events = pq.read_table(deployed.layout.interactions, columns=["user", "item", "weight"])
    liked = events.filter(pc.greater(events["weight"], 0))
    found = []
    for column, name in (("user", "users"), ("item", "items")):
        numbers, counts = np.unique(liked[column].to_numpy(), return_counts=True)
        ids = pq.read_table(deployed.layout.items.parent / f"{name}.parquet")[f"{column}_id"].to_pylist()
        found.append([ids[n] for n in numbers[np.argsort(-counts, kind="stable")]])
    return found[0], found[1]


async def post(client, events: list[dict]) -> int:
    accepted = 0
    for start in range(0, len(events), 100):
        answer = await client.post("/v1/events", json={"events": events[start : start + 100]})
        assert answer.status_code == 202 and not answer.json()["rejected"]
        accepted += answer.json()["accepted"]
    return accepted


async def recommend(client, user: str, count: int = 10) -> dict:
    answer = await client.get(f"/v1/users/{user}/recommendations", params={"count": count})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_what_users_do_over_http_trains_the_next_bundle(deployed):
    users, items = list_users_and_items(deployed)
    fans, others, liked = users[:FANS], users[FANS : FANS + 40], items[:6]
    song = {"title": "Fresh Song", "creators": ["New Band"], "tags": ["rock"], "energy": 0.5, "tempo": 120.0}
    async with start_gateway(deployed) as client:
        assert (await client.put(f"/v1/items/{ITEM}", json=song)).status_code in (200, 201)
        assert (await recommend(client, USER))["cold_start"] is True
        shown = await recommend(client, fans[0])
        heard = [{"user_id": USER, "item_id": item, "type": "listen"} for item in (*liked, ITEM)]
        heard += [{"user_id": fan, "item_id": item, "type": "listen"} for fan in fans for item in (*liked[:3], ITEM)]
        heard += [{"user_id": fan, "item_id": ITEM, "type": "like"} for fan in fans]
        answers = {"user_id": fans[0], "type": "listen", "recommendation_id": shown["recommendation_id"]}
        heard.append({**answers, "item_id": shown["items"][1]["item_id"]})
        posted = await post(client, heard)
        assert posted == len(heard)
    before = deployed.bundle
    outcome = run_pipeline(deployed.config)

    store = BundleStore(deployed.layout.bundles)
    live = store.live()
    assert live != before, outcome
    report, old = (json.loads((store.local_path(one) / "report.json").read_text()) for one in (live, before))
    data = report["data"]
    assert data["stored_events"] == posted and data["events_in_both"] == 0
    assert data["source_events"] + posted == data["events"]
    assert (data["new_users"], data["new_items"]) == (1, 1)
    assert data["served_items"] >= len(shown["items"])
    assert any(f"{posted:,} of the event store" in sentence for sentence in report["reasons"])
    assert store.show(live).events_through == posted

    rows = deployed.store().online_users([USER])
    assert rows["log_offset"][0] == posted and rows["user_number"][0] == old["data"]["users"]
    async with start_gateway(deployed) as client:
        warm = await recommend(client, USER)
        assert warm["cold_start"] is False and warm["release"]["bundle"] == live
        assert any(COLLABORATIVE & set(item["sources"]) for item in warm["items"])
        stranger = await recommend(client, "nobody")
        assert [i["item_id"] for i in warm["items"]] != [i["item_id"] for i in stranger["items"]]
        slates = [await recommend(client, user, 30) for user in others]
        fresh = [item for slate in slates for item in slate["items"] if item["item_id"] == ITEM]
        assert fresh and COLLABORATIVE & {source for item in fresh for source in item["sources"]}

    assert prepare(deployed.config)["skipped"], "events that have been read are not read again"
