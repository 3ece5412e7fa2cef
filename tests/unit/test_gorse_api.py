"""The Gorse-compatible API, called by Gorse's own Python client over a socket."""

import time

import numpy as np
import orjson
import pytest
import requests
from gorse import AsyncGorse, Gorse, GorseException

from gorse_shop import open_gorse_shop
from handsell.access.api_key import create_key
from handsell.access.config import AccessConfig
from handsell.events.store.opening import open_reader
from handsell.serving.http.compatibility import gorse_catalog, gorse_feedback
from handsell.serving.telemetry.request_ids import list_request_ids
from serving_service import start_service
from serving_world import write_world

USER = {"UserId": "bob", "Labels": {"gender": "M", "age": 24}, "Comment": "my user"}
ITEM = {
    "ItemId": "vuejs:vue", "IsHidden": False, "Labels": {"language": "JavaScript", "stars": 3, "topics": ["web"]},
    "Categories": ["framework"], "Timestamp": "2022-02-24T00:00:00Z", "Comment": "Vue.js framework",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def shop(world):
    with open_gorse_shop(world) as shop:
        yield shop


@pytest.fixture
def client(shop):
    return shop.client


def feedback(user, item, kind="like", when="2026-02-24T00:00:00Z", **more):
    return {"FeedbackType": kind, "UserId": user, "ItemId": item, "Timestamp": when, **more}


def refuse(call, *args, **more):
    """Return status and code of a refused call."""
    with pytest.raises(GorseException) as refused:
        call(*args, **more)
    return refused.value.status_code, requests.models.complexjson.loads(refused.value.message)["code"]


def read_slates(world):
    reader = open_reader(world.config)
    try:
        return reader.read_slates()
    finally:
        reader.close()


# -- users and items ----------------------------------------------------------------------------------------


def test_the_session_of_the_client_s_documentation(client):
    assert client.insert_user(USER) == {"RowAffected": 1}
    assert client.insert_item(ITEM) == {"RowAffected": 1}
    given = [feedback("bob", f"i{n}", when=f"2026-02-{n:02}T00:00:00Z") for n in range(1, 6)]
    assert client.insert_feedbacks(given) == {"RowAffected": 5}
    found = client.get_recommend("bob", n=10)
    assert len({score.id for score in found}) == 10 and all(0 <= score.score <= 1 for score in found)
    assert not {f"i{n}" for n in range(1, 6)} & {score.id for score in found}  # surfaces.home.repeat = "exclude"


def test_items_are_put_read_changed_listed_and_deleted(client):
    item = {**ITEM, "ItemId": "an item/with ☂"}
    assert client.insert_item(item) == {"RowAffected": 1}
    assert client.get_item("an item/with ☂") == item
    assert client.update_item("an item/with ☂", is_hidden=True, comment="Other") == {"RowAffected": 1}
    changed = {**item, "IsHidden": True, "Comment": "Other"}
    assert client.get_item("an item/with ☂") == changed
    client.update_item("an item/with ☂", categories=["a", "b"], labels={"size": 2}, timestamp="2023-01-01 00:00:00")
    changed |= {"Categories": ["a", "b"], "Labels": {"size": 2}, "Timestamp": "2023-01-01T00:00:00Z"}
    assert client.get_item("an item/with ☂") == changed
    assert client.delete_item("an item/with ☂") == {"RowAffected": 1}
    assert refuse(client.get_item, "an item/with ☂") == (404, "unknown_item")
    assert refuse(client.update_item, "an item/with ☂", comment="x") == (404, "unknown_item")
    assert refuse(client.insert_item, {"Comment": "without an id"}) == (422, "invalid_request")
    assert refuse(client.insert_item, {**ITEM, "Timestamp": "soon"}) == (400, "invalid_item")


def test_an_item_is_stored_with_the_columns_of_the_import(client, shop):
    client.insert_item({**ITEM, "Stock": 4})
    row = requests.get(f"{shop.url}/v1/items/vuejs:vue", timeout=20).json()
    assert row["title"] == "Vue.js framework" and row["tags"] == ["framework", "language:JavaScript", "topics:web"]
    assert (row["label_stars"], row["label_language"], row["Stock"]) == (3, "JavaScript", 4)
    client.update_item("vuejs:vue", labels={"stars": 4})
    row = requests.get(f"{shop.url}/v1/items/vuejs:vue", timeout=20).json()
    assert row["tags"] == ["framework"] and row["label_stars"] == 4 and "label_language" not in row


def test_categories_are_added_and_removed(client, shop):
    client.insert_item(ITEM)
    for method, name, status in (("put", "new", 200), ("put", "new", 200), ("delete", "framework", 200)):
        answer = requests.request(method, f"{shop.url}/api/item/vuejs:vue/category/{name}", timeout=20)
        assert answer.status_code == status and answer.json() == {"RowAffected": 1}
    assert client.get_item("vuejs:vue")["Categories"] == ["new"]
    assert requests.put(f"{shop.url}/api/item/nobody/category/x", timeout=20).status_code == 404


def test_items_of_the_bundle_are_listed_page_by_page(client, shop):
    client.insert_item({"ItemId": "late", "Comment": "Title late", "Categories": ["x"]})
    client.update_item("i3", comment="Renamed")
    client.delete_item("i4")
    shop.service.bundle.catalog.read()  # as the thread does every second
    seen, cursor = [], ""
    while True:
        items, cursor = client.get_items(50, cursor)
        seen += items
        if not cursor:
            break
    ids = [item["ItemId"] for item in seen]
    assert len(ids) == len(set(ids)) and {"i0", "i7", "i119", "late"} <= set(ids) and "i4" not in ids
    by_id = {item["ItemId"]: item for item in seen}
    assert by_id["i3"]["Comment"] == "Renamed" and by_id["i7"]["IsHidden"] and not by_id["i8"]["IsHidden"]
    assert by_id["i1"]["Categories"] == ["red"]
    assert {item["ItemId"] for item in client.search_items("title 11", n=20)} == {
        "i11",
        *(f"i{n}" for n in range(110, 120)),
    }
    assert [item["ItemId"] for item in client.search_items("renamed")] == ["i3"]
    assert [item["ItemId"] for item in client.search_items("LATE")] == ["late"]
    assert refuse(client.get_items, 5, "page 2") == (400, "invalid_cursor")
    assert refuse(client.get_items, 0) == (422, "invalid_request")


def test_users_are_put_read_listed_and_erased(client, shop):
    others = [{"UserId": f"new{n}", "Labels": ["a", f"b{n}"], "Subscribe": ["s"]} for n in range(5)]
    assert client.insert_users(others) == {"RowAffected": 5}
    assert client.get_user("new1") == {**others[1], "Comment": ""}
    assert requests.patch(f"{shop.url}/api/user/new1", json={"Labels": {"x": 1}}, timeout=20).json() == {
        "RowAffected": 1
    }
    assert client.get_user("new1")["Labels"] == {"x": 1}
    listed, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        users, cursor = client.get_users(2, cursor)
        listed += [user["UserId"] for user in users]
        pages += 1
    assert len(listed) == len(set(listed)) and {f"new{n}" for n in range(5)} <= set(listed)
    client.insert_feedback("like", "new2", "i9", "2026-01-01T00:00:00Z")
    assert client.delete_user("new2") == {"RowAffected": 1}
    assert refuse(client.get_user, "new2") == (404, "unknown_user")
    assert client.list_feedbacks("like", "new2") == []


# -- feedback -----------------------------------------------------------------------------------------------


def test_feedback_is_stored_and_listed(client, shop):
    client.insert_feedback("like", "ann", "i20", "2026-03-01T10:00:00Z", value=4)
    client.insert_feedback("play", "ann", "i21", "", value=0)
    client.insert_feedbacks([feedback("ann", "i20", "like", "2026-03-01T10:00:00Z")])  # the same again
    (liked,) = client.list_feedbacks("like", "ann")
    assert liked == {
        "FeedbackType": "like", "UserId": "ann", "ItemId": "i20", "Value": 4.0, "Timestamp": "2026-03-01T10:00:00Z",
        "Comment": "",
    }  # fmt: skip
    (played,) = client.list_feedbacks("play", "ann")
    assert played["Value"] == 0 and played["Timestamp"].startswith(time.strftime("%Y-", time.gmtime()))
    pair = requests.get(f"{shop.url}/api/feedback/ann/i20", timeout=20).json()
    assert pair == [liked]
    listed, cursor = [], ""
    while True:
        found, cursor = client.get_feedbacks(3, cursor)
        listed += found
        if not cursor:
            break
    assert [one for one in listed if one["UserId"] == "ann"] == [liked, played]
    typed = requests.get(f"{shop.url}/api/feedback/play?n=100", timeout=20).json()
    assert played in typed["Feedback"] and all(one["FeedbackType"] == "play" for one in typed["Feedback"])


def test_feedback_counts_in_the_next_request(client):
    before = [score.id for score in client.get_recommend("carl", n=5)]
    client.insert_feedbacks([feedback("carl", item) for item in before[:2]])
    after = [score.id for score in client.get_recommend("carl", n=5)]
    assert not {*before[:2]} & {*after}


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (feedback("a", "i1", "wish"), 400, "unknown_event_type"),
        (feedback("", "i1"), 400, "invalid_event"),
        (feedback("a", None), 400, "invalid_event"),
        (feedback("a", "i1", when="soon"), 400, "invalid_time"),
        (feedback("a", "i1", when="2999-01-01T00:00:00Z"), 400, "invalid_event"),
        (feedback("a", "i1", Value="much"), 400, "invalid_event"),
        ({"UserId": "a"}, 400, "invalid_event"),
        ("text", 422, "invalid_request"),
    ],
)
def test_a_request_with_bad_feedback_stores_nothing(client, bad, status, code):
    assert refuse(client.insert_feedbacks, [feedback("dora", "i1"), bad]) == (status, code)
    assert client.list_feedbacks("like", "dora") == []


def test_fields_without_a_place_are_named(client):
    given = feedback("eve", "i1", Comment="nice", Reviewer="z", Updated="")
    assert client.insert_feedbacks([given]) == {"RowAffected": 1, "NotKept": ["Comment", "Reviewer"]}
    assert client.insert_feedbacks([{k.lower(): v for k, v in feedback("eve", "i2").items()}]) == {"RowAffected": 1}
    assert client.insert_feedbacks([]) == {"RowAffected": 0}


def test_events_are_not_deleted_one_by_one(client):
    assert refuse(client.delete_feedback, "ann", "i20") == (409, "events_are_kept")


# -- lists --------------------------------------------------------------------------------------------------


def test_pages_of_recommendations_are_one_feed_and_logged_once(client, world):
    whole = [score.id for score in client.get_recommend("fred", n=45)]
    assert len(whole) == len(set(whole)) == 45
    pages = [[score.id for score in client.get_recommend("fred", n=10, offset=offset)] for offset in (0, 10, 40)]
    assert [len(page) for page in pages] == [10] * 3 and pages[0] == whole[:10]
    assert not {*pages[0]} & {*pages[1]} and not {*whole[:40]} & {*pages[2]}
    deadline = time.monotonic() + 20
    while len(shown := [one for one in read_slates(world) if one[2] == "fred"]) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sorted(len(items) for *_, items in shown) == [10, 10, 10, 15, 30]  # offsets were shown before


def test_ids_alone_without_the_version_header(client, shop):
    ids = requests.get(f"{shop.url}/api/recommend/gina?n=4", timeout=20).json()
    assert ids == [score.id for score in client.get_recommend("gina", n=4)]


def test_categories_limit_every_list(client, shop):
    odd = {f"i{n}" for n in range(1, 120, 2)}
    assert {score.id for score in client.get_recommend("hugo", category="red", n=10)} <= odd
    for path in ("recommend/hugo?category=red", "popular/red?x", "latest/red?x", "item/i0/neighbors/red?x"):
        path = path.removesuffix("?x")
        found = requests.get(f"{shop.url}/api/{path}", timeout=20).json()
        assert found and {one if isinstance(one, str) else one["Id"] for one in found} <= odd, path
    assert client.get_recommend("hugo", category="it's none", n=3) == []
    assert refuse(client.get_recommend, "hugo", category="back\\slash") == (400, "invalid_category")


def test_neighbors_popular_and_latest(client, shop):
    found = client.get_neighbors("i10", n=5, offset=2)
    assert len(found) == 5 and set(found[0]) == {"Id", "Score"} and "i10" not in {one["Id"] for one in found}
    assert not {one["Id"] for one in client.get_neighbors("i10", n=2)} & {one["Id"] for one in found}
    assert client.get_neighbors("nothing like it") == []
    popular = requests.get(f"{shop.url}/api/popular?n=40&offset=1", timeout=20).json()
    assert len(popular) == 40 and popular == sorted(popular, key=lambda one: -one["Score"])
    client.insert_item({"ItemId": "brand new", "Timestamp": "2026-11-01T00:00:00Z"})
    client.insert_item({"ItemId": "hidden", "IsHidden": True, "Timestamp": "2026-11-02T00:00:00Z"})
    shop.service.bundle.catalog.read()
    latest = requests.get(f"{shop.url}/api/latest?n=200", timeout=20).json()
    assert latest == sorted(latest, key=lambda one: -one["Score"]) and "hidden" not in {one["Id"] for one in latest}
    assert {"Id": "brand new", "Score": 1_793_491_200.0} in latest
    client.insert_feedback("like", "ida", popular[0]["Id"], "2026-02-01T00:00:00Z")
    unread = requests.get(f"{shop.url}/api/popular?n=40&user-id=ida", timeout=20).json()
    assert popular[0]["Id"] not in {one["Id"] for one in unread} and popular[1]["Id"] in {one["Id"] for one in unread}


def test_a_session_gets_recommendations_without_being_stored(client):
    session = [feedback("jim", "i3"), feedback("jim", "i5", "play")]
    found = client.session_recommend(session, n=6)
    assert len(found) == 6 and not {"i3", "i5"} & {one["Id"] for one in found}
    assert client.list_feedbacks("like", "jim") == []
    assert refuse(client.session_recommend, [feedback("jim", None)]) == (400, "invalid_request")
    assert refuse(client.session_recommend, [feedback("jim", "i1", "wish")]) == (422, "unknown_event_type")


def test_recommendations_are_written_back(client):
    found = client.get_recommend("kim", n=3, write_back_type="play", write_back_delay="0s")
    stored = client.list_feedbacks("play", "kim")
    assert {one["ItemId"] for one in stored} == {score.id for score in found}
    assert not {score.id for score in client.get_recommend("kim", n=20)} & {score.id for score in found}
    assert refuse(client.get_recommend, "kim", write_back_type="wish") == (400, "unknown_event_type")
    assert refuse(client.get_recommend, "kim", write_back_type="play", write_back_delay="10m") == (400, "no_delay")


def test_parameters_that_gorse_does_not_have_are_refused(shop):
    for path in ("recommend/a?count=3", "popular?limit=3", "items?page=2", "recommend/a?n=-1", "recommend/a?n=x"):
        answer = requests.get(f"{shop.url}/api/{path}", timeout=20)
        assert answer.status_code == 422 and answer.json()["code"] == "invalid_request", path


async def test_the_asynchronous_client(shop):
    client = AsyncGorse(shop.url, "any")
    await client.insert_feedback("like", "lea", "i30", "2026-02-24T00:00:00Z")
    assert len(await client.get_recommend("lea", n=3)) == 3
    assert (await client.list_feedbacks("like", "lea"))[0]["ItemId"] == "i30"


# -- access -------------------------------------------------------------------------------------------------


def test_keys_and_scopes_hold(world):
    with open_gorse_shop(world, access=AccessConfig(keys="required")) as shop:

        def make(*scopes):
            key, text = create_key("shop", "server", scopes, time.time_ns() // 1_000)
            shop.log.put_key(key).result()
            shop.service.access.follow_keys()
            return Gorse(shop.url, text, timeout=20)

        assert refuse(shop.client.get_recommend, "a") == (401, "key_invalid")
        assert requests.get(f"{shop.url}/api/health/live", timeout=20).json()["Ready"]
        assert requests.get(f"{shop.url}/api/health/ready", timeout=20).json()["Ready"]
        recommend, events, catalog, admin = (make(scope) for scope in ("recommend", "events", "catalog", "admin"))
        assert len(recommend.get_recommend("a", n=2)) == 2
        assert events.insert_feedback("like", "a", "i1", "") == {"RowAffected": 1}
        assert len(events.list_feedbacks("like", "a")) == 1
        assert catalog.insert_item(ITEM) == catalog.insert_user(USER) == {"RowAffected": 1}
        missing = (403, "missing_scope")
        assert refuse(recommend.insert_feedback, "like", "a", "i1", "") == missing
        assert refuse(events.get_recommend, "a") == refuse(events.insert_item, ITEM) == missing
        assert refuse(events.get_feedbacks, 3) == refuse(catalog.delete_user, "bob") == missing
        assert len(admin.get_feedbacks(3)[0]) == 1 and admin.delete_user("bob") == {"RowAffected": 1}
        reader = open_reader(world.config)
        actions = [(entry.action, entry.object) for entry in reader.read_audit()]
        reader.close()
        assert ("POST /api/item", "item vuejs:vue") in actions
        assert [action for action, _ in actions if "erase" in action] == ["DELETE /api/user/{user_id} (erase)"] * 2
        assert not any("bob" in about for _, about in actions)


def test_without_the_switch_there_is_no_such_api(world):
    with open_gorse_shop(world, serving=world.config.serving) as shop:
        assert requests.get(f"{shop.url}/api/recommend/a", timeout=20).status_code == 404
        assert not any(
            path.startswith("/api") for path in requests.get(f"{shop.url}/openapi.json", timeout=20).json()["paths"]
        )


# -- anything -----------------------------------------------------------------------------------------------

VALUES = (
    None, True, 0, -1, 2**70, 1.5, "", " ", "a", "i1", "like", "\x00", "2026-01-01T00:00:00Z", "soon", [], ["a", None],
    ["a"], [[1]], {}, {"a": 1, "b": [1], "": "x"}, {"tag": "x", "title": 1}, {"c": {"d": None}},
)  # fmt: skip
NAMES = (
    "ItemId", "UserId", "FeedbackType", "Timestamp", "Labels", "Categories", "IsHidden", "title", "Value", "Comment",
    "Subscribe", "item_id", "\x00", "tag", "given", "available",
)  # fmt: skip
CALLS = (
    ("POST", "item", False), ("POST", "items", True), ("PATCH", "item/i1", False), ("POST", "user", False),
    ("POST", "users", True), ("PATCH", "user/u1", False), ("POST", "feedback", True), ("PUT", "feedback", True),
    ("POST", "session/recommend?n=2", True),
)  # fmt: skip


async def test_no_body_fails(world):
    """Any JSON gets an answer that the OpenAPI document describes, never a 5xx."""
    rng = np.random.default_rng(9)
    config = world.config.model_copy(update={"serving": world.config.serving.model_copy(update={"gorse_api": True})})
    deep = {"ItemId": "deep", "UserId": "deep", "Labels": orjson.loads("[" * 300 + "]" * 300)}
    async with start_service(world, config=config) as (client, _):
        for n in range(300):
            method, path, is_list = CALLS[n % len(CALLS)]
            bodies = [{name: VALUES[rng.integers(len(VALUES))] for name in rng.choice(NAMES, 5)} for _ in range(3)]
            body = bodies if is_list else bodies[0] if n % 5 else VALUES[rng.integers(len(VALUES))]
            answer = await client.request(method, f"/api/{path}", json=body if n % 11 else [deep] if is_list else deep)
            assert answer.status_code < 500, (method, path, body, answer.text)
        for path in ("items?n=200", "items?n=200&q=a", "users?n=200", "feedback?n=200", "popular?n=9", "latest?n=9"):
            assert (await client.get(f"/api/{path}")).status_code == 200, path


def test_pages_look_at_a_bounded_number_of_rows(client, shop, monkeypatch):
    for module in (gorse_feedback, gorse_catalog):
        monkeypatch.setattr(module, "SCANNED", 3)
        monkeypatch.setattr(module, "SCANS", 2)
    client.insert_feedbacks([feedback("mia", f"i{n}", "play" if n == 9 else "like") for n in range(10)])
    client.insert_user({"UserId": "mia"})

    def walk(path, key):
        found, cursor, pages = [], "", 0
        while pages == 0 or cursor:
            page = requests.get(f"{shop.url}/api/{path}", params={"n": 50, "cursor": cursor}, timeout=20).json()
            found, cursor, pages = [*found, *page[key]], page["Cursor"], pages + 1
        return found, pages

    played, pages = walk("feedback/play", "Feedback")
    assert [one["ItemId"] for one in played if one["UserId"] == "mia"] == ["i9"] and pages > 1
    users, pages = walk("users", "Users")
    assert "mia" in {user["UserId"] for user in users} and len(users) == len({user["UserId"] for user in users})


def test_ids_of_foreign_requests_are_known_to_the_log_lines():
    """So that they are hashed there."""
    scope = {
        "path": "/api/feedback/bob/vue", "query_string": b"user-id=ann",
        "handsell.body": b'[{"UserId": "eve", "ItemId": "i9", "client_id": "c", "object": {"object_id": "x"}}]',
    }  # fmt: skip
    assert {"bob", "vue", "ann", "eve", "i9", "x", "c"} <= set(list_request_ids(scope))
    assert "bob" in set(list_request_ids({"path": "/api/recommend/bob/"}))
