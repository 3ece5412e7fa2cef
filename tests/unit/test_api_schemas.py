"""Answers of the API over local stages: what is in them, and how requests are read."""

import asyncio
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api_document import ResponseCheck
from handsell.core.clock import Clock
from handsell.core.units import DAY_US
from handsell.events.store.opening import open_reader
from handsell.serving.http import schemas
from handsell.serving.http.schemas import Id, Timestamp
from serving_service import start_service
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


async def test_get_and_post_answer_alike(client):
    query = {"user_id": "u3", "count": 7, "surface": "email"}
    posted = (await client.post("/v1/recommendations", json=query)).json()
    got = (await client.get("/v1/users/u3/recommendations?count=7&surface=email")).json()
    assert [i["item_id"] for i in posted["items"]] == [i["item_id"] for i in got["items"]]
    assert posted["recommendation_id"] != got["recommendation_id"]
    assert posted["surface"] == "email" and not posted["cold_start"] and posted["degraded"] == []
    assert [i["rank"] for i in posted["items"]] == list(range(1, 8))
    assert all(i["sources"] and i["reason"]["code"] and 0 <= i["score"] <= 1 for i in posted["items"])
    assert set(posted["release"]) == {"bundle", "snapshot", "catalog", "rules"} and posted["release"]["catalog"] == 120


async def test_the_surface_says_how_many_where_the_caller_does_not(client):
    for surface, count in (("home", 10), ("email", 5)):
        answer = await client.get(f"/v1/users/u1/recommendations?surface={surface}")
        assert len(answer.json()["items"]) == count


async def test_metadata_only_when_asked_for(client):
    without = (await client.get("/v1/users/u1/recommendations")).json()["items"][0]
    assert "metadata" not in without
    item = (await client.get("/v1/users/u1/recommendations?include=metadata")).json()["items"][0]
    assert item["metadata"]["title"] == f"Title {item['item_id'][1:]}"
    assert item["metadata"]["published_at"].endswith("Z") and "text" not in item["metadata"]


async def test_reasons_name_the_title_of_their_item_beside_metadata(client):
    session = {"events": [{"type": "like", "item_id": f"i{n}"} for n in (90, 91, 92)]}
    body = {"user_id": "never-seen", "session": session, "count": 30}
    plain = (await client.post("/v1/recommendations", json=body)).json()["items"]
    rich = (await client.post("/v1/recommendations", json={**body, "include": ["metadata"]})).json()["items"]
    named = [item["reason"] for item in rich if item["reason"]["item_id"]]
    assert named and all(reason["title"] == f"Title {reason['item_id'][1:]}" for reason in named)
    assert all("title" not in item["reason"] for item in [*plain, *rich] if item["reason"] not in named)


async def test_excluded_unavailable_and_seen_items_do_not_come(client, world):
    first = (await client.post("/v1/recommendations", json={"user_id": "u2", "count": 5})).json()
    unwanted = [i["item_id"] for i in first["items"]]
    body = {"user_id": "u2", "count": 30, "exclude": {"item_ids": [*unwanted, "no-such-item"]}}
    items = {i["item_id"] for i in (await client.post("/v1/recommendations", json=body)).json()["items"]}
    assert not items & {*unwanted, "i7", *world.rows["u2"]["seen_item_ids"]}


async def test_an_unknown_user_is_a_cold_start_and_a_session_changes_the_slate(client):
    cold = (await client.post("/v1/recommendations", json={"user_id": "never-seen"})).json()
    assert cold["cold_start"] and len(cold["items"]) == 10
    assert {tuple(i["sources"]) for i in cold["items"]} == {("popularity",)}
    session = {"events": [{"type": "like", "item_id": f"i{n}"} for n in (90, 91, 92)]}
    warm = (await client.post("/v1/recommendations", json={"user_id": "never-seen", "session": session})).json()
    assert warm["cold_start"]
    assert any("item_knn" in i["sources"] for i in warm["items"])
    assert not {"i90", "i91", "i92"} & {i["item_id"] for i in warm["items"]}
    nobody = (await client.post("/v1/recommendations", json={})).json()
    assert nobody["cold_start"] and [i["item_id"] for i in nobody["items"]] == [i["item_id"] for i in cold["items"]]


async def test_visitors_without_an_account_are_remembered_apart_from_users(client):
    event = {"type": "like", "item_id": "i90", "anonymous_id": "v1"}
    assert (await client.post("/v1/events", json={"events": [event]})).status_code == 202
    assert not (await client.post("/v1/recommendations", json={"anonymous_id": "v1"})).json()["cold_start"]
    assert (await client.post("/v1/recommendations", json={"user_id": "v1"})).json()["cold_start"]


async def test_similar_leaves_the_item_out_and_is_not_a_cold_start(client):
    answer = (await client.get("/v1/items/i90/similar?count=8")).json()
    assert answer["surface"] == "similar" and not answer["cold_start"] and len(answer["items"]) == 8
    assert "i90" not in [i["item_id"] for i in answer["items"]]
    assert any("item_knn" in i["sources"] for i in answer["items"])


async def test_popular_and_trending_are_available_items_in_order(client):
    for path in ("/v1/popular", "/v1/trending"):
        items = (await client.get(f"{path}?count=30")).json()["items"]
        scores = [i["score"] for i in items]
        assert len(items) == 30 and scores == sorted(scores, reverse=True) and scores[0] == 1
        assert "i7" not in [i["item_id"] for i in items]
    assert (await client.get("/v1/popular?count=1&include=metadata")).json()["items"][0]["metadata"]["title"]


async def test_rank_keeps_every_known_item_of_the_callers_list(client):
    ids = ["i5", "i7", "nowhere", "i5", "i90", "i3"]
    answer = (await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ids})).json()
    assert sorted(i["item_id"] for i in answer["items"]) == ["i3", "i5", "i7", "i90"]
    assert answer["unknown_item_ids"] == ["nowhere"] and answer["degraded"] == []
    scores = [i["score"] for i in answer["items"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
    nothing = (await client.post("/v1/rank", json={"item_ids": ["nowhere"]})).json()
    assert nothing["items"] == [] and nothing["unknown_item_ids"] == ["nowhere"]


async def test_the_log_gets_the_event_and_the_impression_as_they_were(client, world):
    answer = (await client.get("/v1/users/u1/recommendations?count=3")).json()
    event = {
        "event_id": "mine", "type": "play", "user_id": "u1", "item_id": answer["items"][1]["item_id"], "value": 2.5,
        "timestamp": "2026-01-02T03:04:05.678Z", "recommendation_id": answer["recommendation_id"], "position": 2,
        "surface": "home",
    }  # fmt: skip
    assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
    reader = open_reader(world.config)
    stored = {name: cells[0] for name, cells in reader.scan().items()}
    assert (
        stored.pop("offset") == 1 and stored.pop("time") == 1_767_323_045_678_000 and stored.pop("propensity") is None
    )
    assert stored.pop("key")
    assert stored == {k: v for k, v in event.items() if k != "timestamp"}
    until = time.monotonic() + 30  # impressions are written behind the answer
    while not (shown := reader.read_impressions())["item_id"] and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert shown["item_id"] == [i["item_id"] for i in answer["items"]]
    assert shown["score"] == [i["score"] for i in answer["items"]]
    assert shown["sources"] == [i["sources"] for i in answer["items"]]
    assert set(shown["propensity"]) == {1.0} and set(shown["bundle"]) == {world.bundle}


async def test_concurrent_requests_share_one_read_of_the_feature_store(world):
    store = world.store()
    async with start_service(world, store=store) as (client, _):
        await asyncio.gather(*(client.get(f"/v1/users/u{n}/recommendations") for n in range(12)))
    assert sum(map(len, store.requested)) == 12 and len(store.requested) < 12


@pytest.mark.parametrize(
    ("given", "us"),
    [
        (1_767_323_045_678, 1_767_323_045_678_000),
        ("2026-01-02T03:04:05.678Z", 1_767_323_045_678_000),
        ("2026-01-02T04:04:05.678901234+01:00", 1_767_323_045_678_901),
        ("1970-01-01T00:00:00Z", 0),
        (1_767_323_045_678.5, 1_767_323_045_678_500),
        (0, 0),
    ],
)
def test_timestamps(given, us):
    assert TypeAdapter(Timestamp).validate_python(given) == us


@pytest.mark.parametrize(
    "given", [True, -1.5, -1, 10**20, float("nan"), "2026-13-01T00:00:00Z", "2026-01-01", "", None, "1e9", []]
)
def test_wrong_timestamps(given):
    with pytest.raises(ValidationError, match="RFC 3339"):
        TypeAdapter(Timestamp).validate_python(given)


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        (1_767_323_045, "epoch seconds"),
        (1_767_323_045.678, "epoch seconds"),
        (1_767_323_045_678_000, "epoch microseconds"),
        (1_767_323_045_678_000_000, "epoch nanoseconds"),
        ("1767323045", "epoch seconds as text"),
        ("1767323045678", "epoch milliseconds as text"),
    ],
)
def test_a_time_in_another_unit_is_refused_with_the_unit(given, unit):
    with pytest.raises(ValidationError, match=f"RFC 3339.* looks like {unit}"):
        TypeAdapter(Timestamp).validate_python(given)


GOOD_EVENT = {"type": "like", "item_id": "i1", "user_id": "u1"}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "type"]), inner),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES | st.builds(lambda name, value: {**GOOD_EVENT, name: value},
                               st.sampled_from([*schemas.Event.model_fields, "other"]), JSON_VALUES))  # fmt: skip
def test_no_event_refuses_its_neighbors(event):
    events = schemas.EventsBody.model_validate({"events": [GOOD_EVENT, event, GOOD_EVENT]}).validated
    assert isinstance(events[0], schemas.Event) and isinstance(events[2], schemas.Event)
    if isinstance(events[1], schemas.InvalidEntry):
        assert events[1].detail and len(events[1].detail) < 600


def test_ids_are_opaque_text():
    for good in ("7", "日本", "a b/c?d", "x" * 256, "🎧"):
        assert TypeAdapter(Id).validate_python(good) == good
    for bad in ("", "a\nb", "\x7f", "x" * 257):
        with pytest.raises(ValidationError):
            TypeAdapter(Id).validate_python(bad)


class Made:
    created_us, data_end_us = 1_000 * DAY_US + 20 * 3_600_000_000, 400 * DAY_US


def test_the_clock_of_a_historic_log_is_off_by_whole_days_and_never_before_its_end():
    clock = Clock.of("data", Made())
    assert clock.offset_us == 600 * DAY_US
    assert abs(clock.now() - Clock().now() + 600 * DAY_US) < 1_000_000
    assert clock.from_wall(700 * DAY_US) == 100 * DAY_US
    assert Clock.of("wall", Made()).offset_us == 0


@pytest.mark.parametrize(
    ("ended", "built", "offset"),
    [(20.0, 20.5, 0), (20.0, 23.9, 0), (20.0, 24.1, 0), (20.0, 48.1, 1), (23.9, 24.0, 0), (24.0, 24.5, 0),
     (0.1, 24 * 9 + 0.05, 8), (20.0, 19.0, -1)],
)  # fmt: skip
def test_a_data_clock_starts_on_the_day_after_the_log_unless_that_is_later_than_now(ended, built, offset):
    """Hours since a midnight; the last case is a log of the future, such as a generated one."""

    class Log:
        created_us, data_end_us = int(built * 3_600_000_000), int(ended * 3_600_000_000)

    assert Clock.of("data", Log()).offset_us == offset * DAY_US
    assert Log.created_us - offset * DAY_US >= Log.data_end_us


def test_a_session_event_may_carry_a_value_and_it_must_be_a_number():
    event = {"type": "rating", "item_id": "7", "value": 4.5}
    body = schemas.RecommendationsBody.model_validate({"user_id": "u", "session": {"events": [event]}})
    assert body.session.events[0].value == 4.5
    with pytest.raises(ValidationError):
        schemas.RecommendationsBody.model_validate({"session": {"events": [{**event, "value": float("nan")}]}})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda item: item.pop("sources"), "'sources' is a required property"),
        (lambda item: item.update(nearly=1), "'nearly' was unexpected"),
        (lambda item: item.update(rank="1"), "'1' is not of type 'integer'"),
    ],
)
async def test_an_answer_that_the_document_does_not_describe_is_noticed(client, spoil, says):
    document = (await client.get("/openapi.json")).json()
    answer = await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "i2"]})
    body = answer.json()
    spoil(body["items"][0])
    with pytest.raises(AssertionError, match=says):
        ResponseCheck(document).check(httpx.Response(200, json=body, request=answer.request))


async def test_a_ranked_item_names_the_sources_that_know_it(client):
    answer = (await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "i2", "i90"]})).json()
    assert all(set(item["sources"]) for item in answer["items"])
