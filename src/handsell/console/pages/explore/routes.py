"""Routes of the page Explore. They only read: what a person is imagined to do is in the address, and stored nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.client.errors import ClientError, ProblemError
from handsell.console.catalog.catalog_search import FoundItem, list_items
from handsell.console.catalog.shown_catalog import ShownCatalog, find_catalog
from handsell.console.page import ConsolePage
from handsell.console.pages.explore.choices import EventChoice, list_comparisons, list_event_choices
from handsell.console.pages.explore.people import find_people
from handsell.console.pages.explore.slates import SlateColumn, build_cards, build_column, summarize_difference
from handsell.console.pages.explore.story import ItemStory, build_story
from handsell.console.pages.explore.view import DIALS, ExploreView, find_titles, read_view
from handsell.console.rendering import is_partial, make_url, render
from handsell.console.visit import Visit, get_visit
from handsell.core.batches import NONE

FEATURES = 60  # contributions that are summed up in a story
SIMILAR, QUESTIONS, MOST_ITEMS = 8, 6, 8
PREVIEW = "/v1/preview"
INVENTED = "somebody new"  # the person of "Invent somebody"


@dataclass(frozen=True)
class ExploreData:
    """What is on the page; parts that the view does not show are empty."""

    columns: tuple[SlateColumn, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    is_new: bool = False
    titles: Mapping[str, str] | None = None
    difference: str = ""
    story: ItemStory | None = None
    story_title: str = ""
    story_error: str = ""
    similar: tuple[Any, ...] = ()
    questions: tuple[Any, ...] = ()
    comparisons: tuple[tuple[str, str], ...] = ()


async def show_explore(request: Request) -> Response:
    visit, view = get_visit(request), read_view(request.query_params)
    choices, text = list_event_choices(visit.config), _read_text(request) if view.user else ""
    items: tuple[FoundItem, ...] = ()
    if text:
        items = await asyncio.to_thread(_find_items, find_catalog(request), text)
        is_id = bool(items) and items[0].item_id == text
        view = view.change(item=text if is_id else "")
        text, items = ("", ()) if is_id else (text, items)
    data = await load_data(visit, view, choices) if view.user else ExploreData()
    people = [] if view.user else await asyncio.to_thread(find_people, visit.config, "")
    template = "explore/view.html.j2" if is_partial(request) else "explore/page.html.j2"
    response = render(
        request, template, title=f"Explore {view.user}".strip(), view=view, data=data, choices=choices,
        comparisons=data.comparisons, surfaces=visit.config.surface_names, people=people, dials=DIALS,
        invented=INVENTED, text=text, items=items,
        settings=next((one.settings for one in reversed(data.columns) if one.settings), None),
    )  # fmt: skip
    if is_partial(request):
        found = urlencode({"find": text}) if text else ""
        query = "&".join(part for part in (view.to_query(), found) if part)
        response.headers["HX-Push-Url"] = make_url(request, f"/explore?{query}")
    return response


async def show_people(request: Request) -> Response:
    """List ids that begin with a text, for the field of the person."""
    visit = get_visit(request)
    text = request.query_params.get("user", "").strip()
    people = await asyncio.to_thread(find_people, visit.config, text)
    return render(request, "explore/people.html.j2", people=people, view=ExploreView(user=text))


async def show_items(request: Request) -> Response:
    """List items whose words match a text, to ask about them or to imagine what the person does with them."""
    visit, view = get_visit(request), read_view(request.query_params).change(item="")
    text = _read_text(request)
    items = await asyncio.to_thread(_find_items, find_catalog(request), text) if text else ()
    choices = list_event_choices(visit.config)
    return render(request, "explore/items.html.j2", items=items, text=text, view=view, choices=choices)


def _read_text(request: Request) -> str:
    """Return what somebody has typed to find an item: words of its title, or its id."""
    return request.query_params.get("find", "").strip()


def _find_items(catalog: ShownCatalog, text: str) -> tuple[FoundItem, ...]:
    view = catalog.read()
    numbers = catalog.search(view, text, MOST_ITEMS)
    exact = view.snapshot.items.number([text])
    found = dict.fromkeys([*exact[exact != NONE].tolist(), *numbers])
    return list_items(view.snapshot, np.array([*found][:MOST_ITEMS], np.int64), view.now)


async def load_data(visit: Visit, view: ExploreView, choices: Sequence[EventChoice]) -> ExploreData:
    """Ask the service for everything that a view shows."""
    sides = ("a", "b") if view.has_second else ("a",)
    answers = await asyncio.gather(*(_ask_preview(visit, view, side) for side in sides))
    first = answers[0] if isinstance(answers[0], dict) else None
    history = tuple(first["history"]) if first else ()
    comparisons = await asyncio.to_thread(
        list_comparisons, visit.config, view.surface, first["bundles"] if first else ()
    )
    items = [item for answer in answers if isinstance(answer, dict) for item in answer["items"]]
    titles = find_titles(items, history)
    columns = tuple(
        _build_side(side, view, answer, titles, first, dict(comparisons))
        for side, answer in zip(sides, answers, strict=True)
    )
    data = ExploreData(
        columns, history, bool(first and first["cold_start"]), titles,
        summarize_difference(columns[1]) if len(columns) > 1 and first else "", comparisons=tuple(comparisons),
    )  # fmt: skip
    if view.item:
        data = await _add_story(visit, view, data)
    if data.is_new and first and len(history) <= QUESTIONS:
        data = replace(data, questions=await _ask_questions(visit, view, choices))
    return data


async def _ask_preview(visit: Visit, view: ExploreView, side: str) -> dict[str, Any] | str:
    """Return a slate, or why there is none."""
    try:
        answer: dict[str, Any] = await visit.ask("GET", PREVIEW, params=view.list_parameters(side))
        return answer
    except ClientError as error:
        return _describe(error)


def _describe(error: ClientError) -> str:
    """Return what the service says, without the place of the call."""
    return error.detail if isinstance(error, ProblemError) else str(error)


def _build_side(
    side: str, view: ExploreView, answer: dict[str, Any] | str, titles: Mapping[str, str],
    first: dict[str, Any] | None, comparisons: Mapping[str, str],
) -> SlateColumn:  # fmt: skip
    title = "What this person gets"
    if side == "b":
        named = comparisons.get(view.compare, view.compare) if view.compare else ""
        title = " and ".join(part for part in (named, "your dials" if view.has_dials else "") if part)
        title = f"With {title}" if not named else title
    if isinstance(answer, str):
        return SlateColumn(title, side, error=answer)
    return build_column(title, side, answer, titles, first["items"] if side == "b" and first else None)


async def _add_story(visit: Visit, view: ExploreView, data: ExploreData) -> ExploreData:
    """Add the story of the chosen item, and items similar to it."""
    side = view.side if view.side == "a" or view.has_second else "a"
    asked = {**view.list_parameters(side), "item_id": view.item, "features": FEATURES}
    titles = data.titles or {}
    data = replace(data, story_title=titles.get(view.item, view.item))
    try:
        answer = await visit.ask("GET", f"{PREVIEW}/explain", params=asked)
        data = replace(data, story=build_story(answer, titles))
        similar = await visit.ask(
            "GET", PREVIEW, params={"user_id": view.user, "similar_to": view.item, "count": SIMILAR}
        )
    except ClientError as error:
        return replace(data, story_error="" if data.story else _describe(error))
    found = find_titles(similar["items"], similar["history"])
    title = found.get(view.item, data.story_title)
    return replace(data, similar=build_cards(similar["items"], found), story_title=title)


async def _ask_questions(visit: Visit, view: ExploreView, choices: Sequence[EventChoice]) -> tuple[Any, ...]:
    """Return items to ask a new person about; none where the key may not ask for them."""
    liked = {choice.kind: choice.is_liked for choice in choices}
    answers: dict[str, list[str]] = {"liked": [], "disliked": []}
    for kind, _, item_id in (event.partition(":") for event in view.event):
        answers["liked" if liked.get(kind, True) else "disliked"].append(item_id)
    answers["disliked"] = [one for one in answers["disliked"] if one not in answers["liked"]]
    asked = {"user_id": view.user, "surface": view.surface, "n": QUESTIONS, "include": "metadata", **answers}
    try:
        answer = await visit.ask("GET", "/v1/onboarding", params=asked)
    except ClientError:
        return ()
    return tuple(
        (item["item_id"], (item.get("metadata") or {}).get("title") or item["item_id"]) for item in answer["items"]
    )


PAGE = ConsolePage(
    "explore",
    "Explore",
    (Route("/", show_explore), Route("/people", show_people), Route("/items", show_items)),
    scope="experiments",
)
