"""The page Rules: what the served rules do, drafts with a preview beside them, publication, and the way back."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.client.errors import ClientError
from handsell.config import Config
from handsell.console.business_rules.drafts import RuleDrafts
from handsell.console.business_rules.edited_rules import open_edited
from handsell.console.business_rules.preview_words import describe_preview
from handsell.console.business_rules.rule_form import list_fields, read_rule
from handsell.console.business_rules.rule_text import append_rule, remove_rule, switch_rule
from handsell.console.business_rules.rule_words import name_kind
from handsell.console.business_rules.served_rules import check_rules
from handsell.console.catalog.shown_catalog import find_catalog
from handsell.console.page import ConsolePage
from handsell.console.rendering import redirect, render
from handsell.console.visit import Visit, get_visit
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.publication import RulesFile

PREVIEWED = ("50", "200", "1000")
PUBLISHED = "Published. The service takes the rules over within a few seconds."
PROBE_USER = "console-probe"  # of a preview that shows which rules the service applies


async def show_rules(request: Request) -> Response:
    return await _render(request)


async def _render(request: Request, status: int = 200, *, text: str | None = None, **values: Any) -> Response:
    """Show the page; `text` replaces the draft of the address."""
    visit, catalog = get_visit(request), find_catalog(request)
    drafts = open_drafts(visit.config)
    view = await asyncio.to_thread(catalog.read)
    edited = await asyncio.to_thread(open_edited, view, drafts, request.query_params.get("draft", ""), text)
    runs = {n: visit.context.commands.find(*_list_preview(visit.config, edited.draft, n)) for n in PREVIEWED}
    shown = next((n for n, run in runs.items() if run is not None), "")
    given = {"problem": "", "adding": {}, "kind": "boost", **values}
    return render(
        request, "rules/page.html.j2", status, title="Rules", edited=edited, view=view,
        kinds=[(name, name_kind(name)) for name in rule_kinds()], fields=list_fields(given["kind"]),
        refusal=visit.explain_refusal("admin") or edited.obstacle, shown_preview=shown,
        surfaces=visit.config.surface_names, **given,
    )  # fmt: skip


async def save_draft(request: Request) -> Response:
    """Keep a text as a draft and check it."""
    return await _keep(request, _read_text(request))


async def add_rule(request: Request) -> Response:
    """Add a rule to the draft, if it fits."""
    visit, catalog = get_visit(request), find_catalog(request)
    before = _read_text(request)
    changed = append_rule(before, read_rule(visit.form))
    checked = await asyncio.to_thread(lambda: check_rules(catalog.read(), changed.encode()))
    if checked.problem:
        given: dict[str, Any] = {name: values[-1] for name, values in visit.form.items()}
        adding = given | {"surfaces": visit.form.get("surfaces", [])}
        return await _render(
            request, 422, text=before, problem=checked.problem, kind=visit.field("kind"), adding=adding
        )
    return await _keep(request, changed, f"The rule {visit.field('name')} is in the draft.")


async def change_rule(request: Request) -> Response:
    """Switch a rule of the draft on or off, or remove it."""
    text = _read_text(request)
    change, _, name = get_visit(request).field("change").partition(":")
    if change == "remove":
        return await _keep(request, remove_rule(text, name), f"The rule {name} is not in the draft any more.")
    changed = switch_rule(text, name, change == "resume")
    return await _keep(
        request, changed, f"The rule {name} is {'active' if change == 'resume' else 'paused'} in the draft."
    )


def _read_text(request: Request) -> str:
    """Return the text of the form as a file: lines end alike, and the last one ends."""
    text = get_visit(request).field("text").replace("\r\n", "\n")
    return f"{text}\n" if text else ""


async def _keep(request: Request, text: str, message: str = "") -> Response:
    version = await asyncio.to_thread(open_drafts(get_visit(request).config).save, text)
    return redirect(request, f"/rules?{urlencode({'draft': version})}", message)


async def show_fields(request: Request) -> Response:
    """Show the fields of a kind: a part of the form that adds a rule."""
    fields = list_fields(request.query_params.get("kind", ""))
    return render(request, "rules/fields.html.j2", fields=fields, adding={})


async def start_preview(request: Request) -> Response:
    """Answer recorded requests with the draft, in a process of its own; the answer asks for its end."""
    visit = get_visit(request)
    version, count = visit.field("draft"), visit.field("requests")
    if open_drafts(visit.config).read(version) is None or count not in PREVIEWED:
        raise ConfigError(
            "preview: expected a draft that is kept, and a number of requests of the list: check it again"
        )
    visit.context.commands.start(*_list_preview(visit.config, version, count))
    return await _render_preview(request, version, count)


async def show_preview(request: Request) -> Response:
    return await _render_preview(
        request, request.query_params.get("draft", ""), request.query_params.get("requests", PREVIEWED[1])
    )


async def _render_preview(request: Request, version: str, count: str) -> Response:
    visit, catalog = get_visit(request), find_catalog(request)
    run = visit.context.commands.find(*_list_preview(visit.config, version, count))
    found = None
    if run is not None and run.is_over and isinstance(run.value, dict):
        view = await asyncio.to_thread(catalog.read)
        found = await asyncio.to_thread(describe_preview, run.value, view.snapshot)
    query = {"draft": version, "requests": count}
    return render(request, "rules/preview.html.j2", run=run, found=found, query=query)


async def publish(request: Request) -> Response:
    visit, catalog = get_visit(request), find_catalog(request)
    visit.require_edit("admin")
    content = open_drafts(visit.config).read(visit.field("draft"))
    if content is None:
        raise ConfigError("rules: expected a draft that is kept, got none: open the page again and check the draft")
    checked = await asyncio.to_thread(lambda: check_rules(catalog.read(), content))
    if checked.problem:
        raise ConfigError(checked.problem)
    file = RulesFile(visit.config)
    expected = visit.field("expected") or None
    async with visit.audited("rules publish", f"rules {checked.version}", f"instead of {expected or 'none'}"):
        await asyncio.to_thread(file.publish, content, _name_person(visit), visit.field("note")[:200], expected)
    return redirect(request, "/rules", PUBLISHED)


async def roll_back(request: Request) -> Response:
    visit = get_visit(request)
    visit.require_edit("admin")
    version = visit.field("version")
    file = RulesFile(visit.config)
    async with visit.audited("rules rollback", f"rules {version[:40]}"):
        await asyncio.to_thread(file.roll_back, _name_person(visit), version)
    return redirect(request, "/rules", PUBLISHED)


async def show_active(request: Request) -> Response:
    """Show which version the service applies: a part of the page, asked by a slate that nobody is shown."""
    visit, wanted, found, problem = get_visit(request), request.query_params.get("version", ""), None, ""
    if not visit.may("experiments"):
        problem = "This key cannot ask the service (scope experiments)."
    else:
        try:
            answer = await visit.ask("GET", "/v1/preview", params={"user_id": PROBE_USER, "count": 1})
            found = answer["release"]["rules"]
        except ClientError as error:
            problem = str(error)
    return render(request, "rules/active.html.j2", wanted=wanted, found=found, problem=problem)


def open_drafts(config: Config) -> RuleDrafts:
    return RuleDrafts(Layout(config.state).rules / "drafts")


def _list_preview(config: Config, version: str, count: str) -> tuple[str, ...]:
    path = open_drafts(config).find_path(version)
    return ("rules", "preview", str(config.source), "--rules", str(path), "--requests", count, "--json")


def _name_person(visit: Visit) -> str:
    return visit.caller.name if visit.is_signed_in else "console"


PAGE = ConsolePage(
    "rules",
    "Rules",
    (
        Route("/", show_rules),
        Route("/draft", save_draft, methods=["POST"]),
        Route("/add", add_rule, methods=["POST"]),
        Route("/change", change_rule, methods=["POST"]),
        Route("/fields", show_fields),
        Route("/preview", show_preview),
        Route("/preview", start_preview, methods=["POST"]),
        Route("/publish", publish, methods=["POST"]),
        Route("/rollback", roll_back, methods=["POST"]),
        Route("/active", show_active),
    ),
    scope="catalog",
)
