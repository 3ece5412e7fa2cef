"""The page Explore: slates side by side, imagined events, the story of an item."""

import re

import httpx
import pytest
from starlette.datastructures import QueryParams

from console_app import open_console
from handsell.config import Arm, Experiment
from handsell.console.pages.explore import words
from handsell.console.pages.explore.choices import list_comparisons, list_event_choices
from handsell.console.pages.explore.people import find_people
from handsell.console.pages.explore.routes import ExploreData
from handsell.console.pages.explore.slates import SlateColumn, describe_move
from handsell.console.pages.explore.view import ExploreView, ViewError, read_view
from handsell.console.rendering import open_templates
from handsell.data.config import EventType
from handsell.eligibility.filter_reasons import FILTERS
from handsell.reranking.explain import WITHOUT
from handsell.reranking.reasons import REASONS
from handsell.retrieval.config import retrievers
from handsell.serving.http.schemas import EventsBody
from serving_service import load_world_bundle
from serving_world import publish_other_bundle, write_world

CARD = re.compile(r"<h3>([^<]+?)(?: <span class=\"tag move\">([^<]+)</span>)?</h3>")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"), with_content=True)


def list_cards(html):
    """Titles and moves of each slate."""
    return [CARD.findall(part) for part in html.split('class="card slate"')[1:]]


async def show(visitor, view):
    response = await visitor.get(f"/explore?{view.to_query()}")
    assert response.status_code == 200, response.text
    return response.text


async def test_without_a_person_it_asks_for_one(world):
    async with open_console(world) as visitor:
        page = (await visitor.get("/explore")).text
        assert "Whose recommendations do you want to see?" in page and 'class="card slate"' not in page


async def test_a_person_has_a_history_and_a_slate_with_reasons(world):
    async with open_console(world) as visitor:
        page = await show(visitor, ExploreView(user="u3"))
        (cards,) = list_cards(page)
        assert len(cards) == 10 and all(title.startswith("Title ") for title, _ in cards)
        assert "What the models read of this person" in page and page.count('<ol class="events">') == 1
        assert any(text.split("{")[0] in page for text in words.REASONS.values())


async def test_the_dials_make_a_second_slate_that_says_what_moved(world):
    async with open_console(world) as visitor:
        page = await show(visitor, ExploreView(user="u3", diversity=0.95))
        first, second = list_cards(page)
        assert not any(move for _, move in first) and any(move for _, move in second)
        places = {title: place for place, (title, _) in enumerate(first, 1)}
        for place, (title, move) in enumerate(second, 1):
            assert move == describe_move(places.get(title), place)
        unmoved = (await visitor.get("/explore?user=u3&diversity=0.085&base_diversity=0.085")).text
        assert len(list_cards(unmoved)) == 1


async def test_arms_and_surfaces_stand_side_by_side(world):
    arms = {"control": Arm(share=0.5), "bold": Arm(share=0.5, reranking={"diversity": 0.9})}
    config = world.config.model_copy(update={"experiments": {"bolder": Experiment(arms=arms)}})
    texts = dict(list_comparisons(config, "home"))
    assert (
        texts["arm:bolder.bold"] == "Arm bold of the experiment bolder" and texts["surface:email"] == "Shown on email"
    )
    assert "surface:home" not in texts and "surface:home" in dict(list_comparisons(config, "email"))
    async with open_console(world) as visitor:
        page = await show(visitor, ExploreView(user="u3", compare="surface:email"))
        first, second = list_cards(page)
        assert (len(first), len(second)) == (10, 5) and "Shown on email" in page
        wrong = await show(visitor, ExploreView(user="u3", compare="arm:bolder.bold"))
        assert 'name="find"' in wrong and 'name="diversity"' in wrong  # to go on from here
        assert "expected EXPERIMENT.ARM" in wrong and "GET /v1" not in wrong and len(list_cards(wrong)[0]) == 10


async def test_two_bundles_stand_side_by_side(world):
    other = publish_other_bundle(world, 5)
    async with open_console(world) as visitor:
        visitor.service.arm_bundles = {other: load_world_bundle(world, visitor.service.metrics, bundle=other)}
        page = await show(visitor, ExploreView(user="u3", compare=f"bundle:{other}"))
        first, second = list_cards(page)
        assert first != second and page.count(f"Bundle {world.bundle}") == 1 and f"Bundle {other}" in page
        assert f"Live bundle {world.bundle}" in page


async def test_a_service_that_does_not_answer_is_a_sentence(world):
    def refuse(request):
        raise httpx.ConnectError("refused", request=request)

    async with open_console(world) as visitor:
        visitor.http._transport.app.state.context.service._http._transport = httpx.MockTransport(refuse)
        page = (await visitor.get("/explore?user=u3")).text
        assert "There is no slate." in page and "check the address, and that the service runs" in page
        assert (await visitor.get("/explore")).status_code == 200


async def test_a_dial_stays_where_it_is_when_only_the_second_slate_is_refused(world):
    class RefusesDials(httpx.AsyncBaseTransport):
        def __init__(self, service):
            self.service = service

        async def handle_async_request(self, request):
            if "diversity" in request.url.params:
                return httpx.Response(
                    503, json={"title": "busy", "status": 503, "detail": "busy", "code": "overloaded"}
                )
            return await self.service.handle_async_request(request)

    async with open_console(world) as visitor:
        http = visitor.http._transport.app.state.context.service._http
        http._transport = RefusesDials(http._transport)
        page = await show(visitor, ExploreView(user="u3", diversity=0.5))
        assert page.count("There is no slate.") == 1 and len(list_cards(page)) == 2
        assert 'name="diversity" type="range" min="0" max="1" step="any" value="0.5"' in page


async def test_an_imagined_event_changes_the_slate_and_is_not_stored(world):
    async with open_console(world) as visitor:
        view = ExploreView(user="somebody new")
        page = await show(visitor, view)
        assert "What does this person like?" in page and "New: nothing is known" in page
        after = await show(visitor, view.with_event("like", "i61").with_event("like", "i63"))
        assert list_cards(after) != list_cards(page) and "Imagined, and stored nowhere" in after
        assert "Title 61" in after and "forget" in after
        assert list_cards(await show(visitor, view)) == list_cards(page)


async def test_the_story_says_why_an_item_is_here_or_not(world):
    async with open_console(world) as visitor:
        page = await show(visitor, ExploreView(user="u3"))
        item = re.search(r"item=(i\d+)", page)[1]
        told = await show(visitor, ExploreView(user="u3", item=item))
        assert "Shown at place 1." in told and "Who suggests it?" in told and "Similar items" in told
        assert 'class="chosen"' in told and "% chance to be chosen<" in told
        hidden = await show(visitor, ExploreView(user="u3", item="i7"))
        assert "Not shown: not available." in hidden and "the catalog marks it as unavailable" in hidden
        unknown = await show(visitor, ExploreView(user="u3", item="nothing"))
        assert "is not in the catalog of this release" in unknown and list_cards(unknown)[0]


async def test_a_part_of_the_page_has_its_address_and_no_frame(world):
    async with open_console(world) as visitor:
        await visitor.get("/explore")
        part = await visitor.get("/explore?user=u3&base_novelty=0.08&novelty=0.08", headers={"HX-Request": "true"})
        assert part.headers["hx-push-url"] == "/console/explore?user=u3" and "<html" not in part.text
        back = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
        assert "<html" in (await visitor.get("/explore?user=u3", headers=back)).text


async def test_it_needs_a_key_for_experiments(world, monkeypatch):
    monkeypatch.setattr("handsell.console.visitors.FOLLOW_S", 0.0)
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("experiments")
        page = await show(visitor, ExploreView(user="somebody new"))
        assert len(list_cards(page)[0]) == 10 and "What does this person like?" not in page  # needs recommend
        await visitor.get("/explore")
        await visitor.post("/signout")
        await visitor.sign_in("recommend")
        assert "needs a key with the scope experiments" in (await visitor.get("/explore?user=u3")).text


async def test_people_are_found_by_the_beginning_of_their_id(world):
    async with open_console(world) as visitor:
        events = [{"type": "like", "user_id": user, "item_id": "i1"} for user in ("ann", "bob", "anna")]
        await visitor.service.events(EventsBody.model_validate({"events": events}))
        assert find_people(world.config, "") == ["anna", "bob", "ann"] and find_people(world.config, "ann") == [
            "anna",
            "ann",
        ]
        await visitor.get("/explore")
        found = await visitor.get("/explore/people?user=bo", headers={"HX-Request": "true"})
        assert ">bob<" in found.text and "ann" not in found.text
        assert "Nobody known begins with “zed”" in (await visitor.get("/explore/people?user=zed")).text


async def test_items_are_found_by_words_of_their_title_or_by_their_id(world):
    async with open_console(world) as visitor:
        await visitor.get("/explore")
        found = (await visitor.get("/explore/items?user=u3&diversity=0.5&find=title+42")).text
        assert found.index("Title 42<") < found.index("Imagine: like Title 42")
        assert "?user=u3&amp;diversity=0.5&amp;item=i42" in found and "event=like%3Ai42" in found
        assert "Title 9<" in (await visitor.get("/explore/items?user=u3&find=i9")).text
        assert "No item has the words “zzz”" in (await visitor.get("/explore/items?user=u3&find=zzz")).text
        told = (await visitor.get("/explore?user=u3&find=i7")).text  # typed, and Enter
        assert "Not shown: not available." in told
        asked = "/explore?user=u3&item=i9&find=title+42"
        listed = (await visitor.get(asked)).text
        assert "?user=u3&amp;item=i42" in listed and 'value="title 42"' in listed and "The story of" not in listed
        part = await visitor.get(asked, headers={"HX-Request": "true"})
        assert part.headers["hx-push-url"] == "/console/explore?user=u3&find=title+42" and "Title 42<" in part.text
        assert "No item has the words “zzz”" in (await visitor.get("/explore?user=u3&find=zzz")).text


def test_ids_in_the_address_are_kept_as_they_are():
    view = ExploreView(user="a&b=c/ü", event=("like:x:y", "rating=5:1"), item="<b>", novelty=0.25, side="b")
    assert read_view(QueryParams(view.to_query())) == view


def test_a_surface_is_not_compared_with_itself():
    assert not read_view(QueryParams({"user": "u", "surface": "email", "compare": "surface:email"})).has_second
    assert not read_view(QueryParams({"user": "u", "compare": "surface:home"})).has_second
    assert read_view(QueryParams({"user": "u", "compare": "surface:email"})).has_second


def test_a_move_is_told_from_the_first_slate_to_the_second():
    assert [describe_move(*each) for each in ((5, 2), (2, 5), (3, 3), (None, 1))] == [
        "▲ 3 up",
        "▼ 3 down",
        "",
        "new here",
    ]


@pytest.mark.parametrize("text", ["x", "2", "-1", "nan"])
def test_a_wrong_dial_is_named(text):
    with pytest.raises(ViewError, match="diversity: expected a number from 0 to 1"):
        read_view(QueryParams({"user": "u", "diversity": text}))


async def test_what_somebody_types_stays_text(world):
    async with open_console(world) as visitor:
        page = await show(visitor, ExploreView(user="<script>alert(1)</script>", event=("like:<i>",), item="<u>"))
        assert "<script>alert" not in page and "<i>" not in page and "<u>" not in page


def test_every_name_of_the_answers_has_words():
    assert set(words.REASONS) == {*REASONS} and set(words.FILTERS) == {*FILTERS} and set(words.MOVES) == {*WITHOUT}
    built_in = {name for name, plugin in retrievers().items() if plugin.config.__module__.startswith("handsell.")}
    assert built_in <= set(words.SOURCES)


def test_events_to_imagine_are_those_of_the_config(world):
    assert [choice.kind for choice in list_event_choices(world.config)] == ["play", "like", "skip"]
    rating = EventType(weight_by_value=((1.0, -1.0), (4.0, 2.0)))
    events = world.config.events.model_copy(update={"types": {"rating": rating}})
    choices = list_event_choices(world.config.model_copy(update={"events": events}))
    assert [(one.kind, one.is_liked) for one in choices] == [("rating=4", True), ("rating=1", False)]


def test_titles_that_are_gone_are_quoted():
    html = open_templates().from_string(
        '{% import "explore/parts.html.j2" as p %}{{ p.slate(column, view, data, (), "") }}'
    )
    column = SlateColumn("With email", "b", gone=("The Other Archive, Part Two", "Sun"))
    page = html.render(column=column, view=ExploreView(user="u"), data=ExploreData())
    assert "No longer here: “The Other Archive, Part Two”, “Sun”." in page
