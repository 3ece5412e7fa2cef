"""The page Catalog: search items, look at one, switch it on or off, and change its tags."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.client.errors import InvalidRequest
from handsell.console.business_rules.rule_words import RuleInWords
from handsell.console.business_rules.served_rules import list_rules_of_item
from handsell.console.catalog.catalog_search import ORDERS, STATES, CatalogQuery, FoundItems, search_catalog
from handsell.console.catalog.item_facts import ItemPlaces, describe_exposure, find_edits, find_places, list_columns
from handsell.console.catalog.shown_catalog import CatalogView, ShownCatalog, find_catalog
from handsell.console.page import ConsolePage
from handsell.console.rendering import is_partial, redirect, render
from handsell.console.visit import get_visit
from handsell.core.errors import ConfigError

SAVED = "Saved. Recommendations follow within about a second."
UNCHANGED = "Nothing was changed."


async def show_catalog(request: Request) -> Response:
    """Show the search; results of the first search come as a part of their own, as it reads the whole catalog."""
    catalog, query = find_catalog(request), CatalogQuery.parse(request.query_params)
    is_part = is_partial(request) and "hx-history-restore-request" not in request.headers
    view = await asyncio.to_thread(catalog.read)
    found = None
    if is_part or not query.q or catalog.is_indexed(view):
        found = await asyncio.to_thread(_search, catalog, view, query)
    template = "catalog/results.html.j2" if is_part else "catalog/page.html.j2"
    return render(
        request, template, title="Catalog", query=query, found=found, view=view, states=STATES, orders=ORDERS,
        size=len(view.snapshot),
    )  # fmt: skip


def _search(catalog: ShownCatalog, view: CatalogView, query: CatalogQuery) -> FoundItems:
    return search_catalog(view, lambda text, most: catalog.search(view, text, most), query)


async def show_item(request: Request) -> Response:
    return await _render_item(request, request.query_params.get("id", ""))


async def _render_item(request: Request, item_id: str, status: int = 200, **form: Any) -> Response:
    visit, catalog = get_visit(request), find_catalog(request)
    item = {"creators": [], "tags": [], **await visit.ask("GET", "/v1/items", params={"item_id": item_id})}
    view = await asyncio.to_thread(catalog.read, is_fresh=True)
    places, rules, problem = await asyncio.to_thread(_judge, view, item_id)
    return render(
        request, "catalog/item.html.j2", status, title=item.get("title") or item_id, item=item,
        columns=list_columns(item), places=places, rules=rules, rules_problem=problem, view=view,
        refusal=visit.explain_refusal("catalog"),
        form={"tags": "\n".join(item["tags"]), "available": item["available"], "problem": "", **form},
    )  # fmt: skip


def _judge(view: CatalogView, item_id: str) -> tuple[ItemPlaces, tuple[RuleInWords, ...], str]:
    """Return where an item may appear, the rules that select it, and why those cannot be read."""
    try:
        rules, problem = list_rules_of_item(view, item_id), ""
    except ConfigError as error:
        rules, problem = (), str(error)
    return find_places(view, item_id, rules), rules, problem


async def show_exposure(request: Request) -> Response:
    """Show how an item has been shown: a part of its page, which reads the log."""
    catalog, item_id = find_catalog(request), request.query_params.get("id", "")
    view = await asyncio.to_thread(catalog.read)
    found = await asyncio.to_thread(catalog.read_exposure, view, item_id)
    return render(request, "catalog/exposure.html.j2", exposure=describe_exposure(found), has_any=found.impressions > 0)


async def edit_item(request: Request) -> Response:
    """Change an item through the API, with the visitor's key."""
    visit = get_visit(request)
    visit.require_edit("catalog")
    item_id = visit.field("item_id")
    changes = find_edits(visit.form, visit.form)
    if changes:
        try:
            await visit.ask("PATCH", "/v1/items", params={"item_id": item_id}, json=changes)
        except InvalidRequest as error:
            form = {"tags": visit.field("tags"), "available": visit.field("available") == "on"}
            return await _render_item(request, item_id, 422, problem=error.detail, **form)
    return redirect(request, f"/catalog/item?{urlencode({'id': item_id})}", SAVED if changes else UNCHANGED)


PAGE = ConsolePage(
    "catalog",
    "Catalog",
    (
        Route("/", show_catalog),
        Route("/item", show_item),
        Route("/exposure", show_exposure),
        Route("/item", edit_item, methods=["POST"]),
    ),
    scope="catalog",
)
