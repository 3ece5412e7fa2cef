"""The page Catalog: search, an item with its exposure and rules, and edits that go through the API."""

import re
from html import unescape

import numpy as np
import pytest

from console_app import open_console
from handsell.config import load_config
from handsell.console.catalog.catalog_search import CatalogQuery, list_items, search_catalog
from handsell.console.catalog.item_facts import find_edits, format_value, split_lines
from handsell.console.catalog.shown_catalog import ShownCatalog
from handsell.core.errors import BundleError
from handsell.core.paths import Layout
from handsell.testing.rule_catalog import write_rule
from handsell.testing.small_catalog import NOW, draw_snapshot
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    made = write_world(folder)
    path = folder / "shop.toml"
    email = "[surfaces.email]\nfilter = \"item.title != 'Title 6'\"\n"
    path.write_text(path.read_text().replace("[surfaces.email]\n", email) + '[reranking]\nrules = "rules.toml"\n')
    rules = [
        write_rule("no_five", "exclude", items="item.item_id == 'i5'"),
        write_rule("late", "pin", items="'red' in item.tags", position=2, from_="2100-01-01", surfaces=["home"]),
    ]
    (folder / "rules.toml").write_text("\n".join(rules).replace('"2100-01-01"', "2100-01-01"))
    return type(made)(load_config(path), made.snapshot, made.bundle, made.rows)


def read_text(response):
    """Return the words of a page."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.text)))


def list_links(response):
    return re.findall(r'href="/console/catalog/item\?id=([^"]+)"', response.text)


@pytest.fixture
def catalog(world):
    return ShownCatalog(world.config)


def find_ids(catalog, **query):
    view = catalog.read()
    found = search_catalog(view, lambda text, most: catalog.search(view, text, most), CatalogQuery.parse(query))
    return [item.item_id for item in found.items], found


def test_words_a_filter_and_a_state_find_the_items_that_have_them_all(catalog):
    ids, found = find_ids(catalog, q="title 11")
    assert ids[0] == "i11" and found.total == 11 and not found.is_cut  # 11, 110 … 119
    assert find_ids(catalog, q="title 11", where="'red' in item.tags")[1].total == 6
    assert find_ids(catalog, q="i1")[0][0] == "i1" and find_ids(catalog, q="i1")[1].total == 31  # i1, i10 … i119
    assert find_ids(catalog, q="red", state="on")[1].total == 59  # i7 is switched off
    assert find_ids(catalog, state="off")[0] == ["i7"]
    assert find_ids(catalog, q="nonesuch")[1].total == 0


def test_pages_follow_each_other_and_end(catalog):
    pages = [find_ids(catalog, page=str(page))[0] for page in range(1, 6)]
    assert [len(ids) for ids in pages] == [25, 25, 25, 25, 20] and len({i for ids in pages for i in ids}) == 120
    assert find_ids(catalog, page="77")[0] == pages[-1] and find_ids(catalog, page="x")[0] == pages[0]
    view = catalog.read()
    times = [view.snapshot.published[view.snapshot.items.number(ids)] for ids in pages]
    assert all((part[:-1] >= part[1:]).all() for part in times)


@pytest.mark.parametrize("where", ["item.yeer > 1", "user.country == 'DE'", "item.title ==", "("])
def test_a_wrong_filter_is_said_where_it_is_wrong(catalog, where):
    _, found = find_ids(catalog, where=where)
    assert found.problem and not found.items


def test_an_address_with_wrong_values_asks_for_the_first_choices():
    query = CatalogQuery.parse({"state": "x", "order": "y", "page": "-1", "q": " a "})
    assert query == CatalogQuery(q="a") and query.list_parameters(page=2) == {"q": "a", "page": "2"}


def test_items_without_titles_are_listed_by_their_ids(rng):
    snapshot = draw_snapshot(rng, 5)  # its metadata has ids alone
    items = list_items(snapshot, np.array([3, 0]), NOW)
    assert [(one.item_id, one.title, one.creators, one.tags) for one in items] == [
        ("i3", "i3", (), ()), ("i0", "i0", (), ()),
    ]  # fmt: skip
    assert list_items(snapshot, np.array([], np.int64), NOW) == ()


def test_the_words_of_a_former_bundle_are_removed(world, catalog):
    folder = Layout(world.config.state).console
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search-former.db").touch()
    find_ids(catalog, q="title")
    assert [path.name for path in folder.glob("*")] == [f"search-{world.bundle}.db"]


def test_without_a_live_bundle_the_catalog_says_what_to_do(configured):
    with pytest.raises(BundleError, match="handsell train"):
        ShownCatalog(configured('name = "bare"\n')).read()


def test_only_changed_fields_are_edited():
    form = {"tags": ["a\r\n b \n\na"], "tags_before": ["a\nb"], "available": ["on"], "available_before": ["on"]}
    assert find_edits(form, form) == {}
    assert find_edits(form, {**form, "tags": [""]}) == {"tags": []}
    assert find_edits(form, {**form, "available": [""]}) == {"available": False}
    assert split_lines("x, y\n z ") == ["x, y", "z"]
    assert [format_value(v) for v in (True, 3, 2.5, ["a", "b"], {"a": [1]}, "x")] == [
        "yes", "3", "2.5", "a, b", '{"a": [1]}', "x",
    ]  # fmt: skip


async def test_the_first_search_comes_as_a_part_and_later_ones_at_once(world):
    async with open_console(world) as visitor:
        page = await visitor.get("/catalog?q=title+11")
        assert page.status_code == 200 and "Reading the words of 120 items" in page.text and not list_links(page)
        part = await visitor.get("/catalog?q=title+11", headers={"HX-Request": "true"})
        assert list_links(part)[0] == "i11" and "<html" not in part.text and "11 items found" in part.text
        again = await visitor.get("/catalog?q=title+11")
        assert list_links(again) == list_links(part) and "<html" in again.text
        restored = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
        assert "<html" in (await visitor.get("/catalog", headers=restored)).text
        assert "No item matches" in (await visitor.get("/catalog?q=zzz")).text
        wrong = await visitor.get("/catalog?where=item.yeer+>+1")
        assert "The filter cannot be used" in wrong.text and "did you mean item.year" not in wrong.text


async def test_an_item_shows_where_it_may_appear_and_which_rules_touch_it(world):
    async with open_console(world) as visitor:
        page = await visitor.get("/catalog/item?id=i5")
        words = read_text(page)
        assert 'action="/console/explore"' in page.text and 'name="item" value="i5"' in page.text
        assert "The story of “Title 5”" in read_text(await visitor.get("/explore?item=i5&user=u1"))
        assert "filters or rules keep it out of every list" in words
        assert "Never show them applies now no_five: items with item.item_id == 'i5', everywhere, always" in words
        assert "Show the best of them at position 2 not at this time" in words and "from 2100-01-01 (UTC)" in words
        assert "email ✕ no kept out by the rule no_five" in words and "home ✕ no kept out by the rule" in words
        six = read_text(await visitor.get("/catalog/item?id=i6"))
        assert "No rule selects this item" in six and "home ✓ yes no filter" in six
        assert "It can appear in recommendations." in six
        assert "email ✕ no kept out by its filter: item.title != 'Title 6'" in six
        seven = read_text(await visitor.get("/catalog/item?id=i7"))
        assert (
            "It is switched off" in seven and "home ✕ no switched off" in seven and "email ✕ no switched off" in seven
        )
        missing = await visitor.get("/catalog/item?id=nowhere")
        assert missing.status_code == 404 and "unknown or deleted" in missing.text


async def test_exposure_counts_what_was_shown_and_done(world):
    async with open_console(world) as visitor:
        shown = (await visitor.http.get("/console/catalog/exposure?id=i3")).text
        assert "Not shown in the last 28 days" in shown
        listed = await ask_api(visitor, "GET", "/v1/users/u1/recommendations?count=3")
        first, named = listed["items"][0]["item_id"], {"recommendation_id": listed["recommendation_id"]}
        like = {"type": "like", "user_id": "u1", "item_id": first}
        await ask_api(visitor, "POST", "/v1/events", json={"events": [like, {**like, **named}]})
        await visitor.service._impressions.close()
        words = read_text(await visitor.get(f"/catalog/exposure?id={first}"))
        assert "Times shown 1 in 28 days" in words and "Average position 1.0" in words
        assert "Like 2 1 from a recommendation, 100.0% of times shown" in words and "home 1 100%" in words


async def ask_api(visitor, method, path, **parts):
    import httpx

    from handsell.serving.http.api import build_api

    transport = httpx.ASGITransport(build_api(visitor.service))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        response = await http.request(method, path, **parts)
    assert response.status_code < 300, response.text
    return response.json() if response.content else None


async def test_an_edit_goes_through_the_api_and_is_seen_at_once(world):
    async with open_console(world) as visitor:
        await visitor.get("/catalog")
        off = await visitor.post("/catalog/item", item_id="i9", tags="blue", tags_before="red", available="on")
        assert off.status_code == 403 and "Switch on “Edit”" in off.text
        await visitor.switch_edit()
        assert "No item matches" in (await visitor.get("/catalog?q=deep+blue", headers={"HX-Request": "true"})).text
        fields = {"item_id": "i9", "tags": "deep blue\nblue", "tags_before": "red", "available_before": "on"}
        saved = await visitor.post("/catalog/item", **fields)
        assert saved.status_code == 200 and "Saved." in saved.text and "It is switched off" in saved.text
        item = await ask_api(visitor, "GET", "/v1/items/i9")
        assert (item["tags"], item["available"], item["title"]) == (["deep blue", "blue"], False, "Title 9")
        part = await visitor.get("/catalog?q=deep+blue", headers={"HX-Request": "true"})
        assert list_links(part) == ["i9"] and "switched off" in part.text
        same = {"item_id": "i9", "tags": "deep blue\nblue", "tags_before": "deep blue\nblue"}
        assert "Nothing was changed" in (await visitor.post("/catalog/item", **same)).text
        long = await visitor.post("/catalog/item", **{**same, "tags": "x" * 40_000})
        assert long.status_code in (413, 422) and "Not saved." in long.text and "xxxxx" in long.text


async def test_a_deleted_item_is_in_no_list(world):
    async with open_console(world) as visitor:
        before = (await visitor.get("/catalog")).text
        assert "120 items" in before
        await ask_api(visitor, "DELETE", "/v1/items/i20")
        catalog = ShownCatalog(world.config)
        assert find_ids(catalog)[1].total == 119 and find_ids(catalog, q="i20")[0] == []
        assert "i20" not in find_ids(catalog, state="off")[0]
        gone = await visitor.get("/catalog/item?id=i20")
        assert gone.status_code == 404


async def test_a_key_without_the_scope_sees_no_catalog(world, monkeypatch):
    monkeypatch.setattr("handsell.console.visitors.FOLLOW_S", 0.0)
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("recommend")
        refused = await visitor.get("/catalog")
        assert refused.status_code == 403 and "scope catalog" in refused.text
        await visitor.post("/signout")
        await visitor.sign_in("catalog")
        page = await visitor.get("/catalog/item?id=i5")
        assert page.status_code == 200 and 'action="/console/explore"' not in page.text


@pytest.mark.parametrize("item_id", ["a/b c", "é?&=#%", "<script>alert(1)</script>", "..", "a\"b'c"])
async def test_any_id_and_any_text_of_a_shop_is_shown_as_it_is(world, item_id):
    async with open_console(world) as visitor:
        title = "<img src=x onerror=alert(1)> & ‘quoted’"
        await ask_api(visitor, "PUT", "/v1/items", params={"item_id": item_id}, json={"title": title, "tags": ["<b>"]})
        part = await visitor.get("/catalog?q=onerror", headers={"HX-Request": "true"})
        link = unescape(re.findall(r'href="(/console/catalog/item\?id=[^"]+)"', part.text)[0])
        page = await visitor.http.get(link)
        assert page.status_code == 200 and "<img" not in page.text and title in unescape(page.text)
        assert "<script>alert" not in page.text and item_id in unescape(page.text)
