"""The page Operations: how the service is, which bundle it serves, checks of the data, and who changed what."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handsell.bundles.opening import open_bundles
from handsell.client.errors import ClientError, ProblemError
from handsell.console.figures import bundle_reports, checks, service_health
from handsell.console.figures.live_lists import count_lists
from handsell.console.page import ConsolePage
from handsell.console.pages.quality import build_chart, has_line
from handsell.console.rendering import redirect, render
from handsell.console.visit import ActionRefused, Visit, get_visit
from handsell.experiments.canary import describe_canary, parse_share
from handsell.experiments.state import open_states
from handsell.local import bundles as bundle_commands
from handsell.maintenance.audit_log import read_entries
from handsell.serving.telemetry.deployment_status import DeploymentReplicas, read_deployments

AUDIT_DAYS, MOST_ENTRIES = 30, 200
LONGEST = 100  # characters of a field
DAY_S = 86_400.0


async def show_health(request: Request) -> Response:
    """Show whether the service is ready, its parts, and how fast and complete its answers are."""
    visit = get_visit(request)
    watcher = visit.context.watcher
    await watcher.refresh()
    readiness, problem = await _ask_readiness(visit)
    sums, since = count_lists(watcher.series)
    parts, parts_problem = await asyncio.to_thread(_read_parts)
    points = list(watcher.series.list_points())
    charts = [
        build_chart("Time within which 95 of 100 calls end (ms)", service_health.draw_stage_times(points)),
        build_chart("Lists per minute", service_health.draw_requests(points)),
    ]
    return render(
        request, "operations/health.html.j2", title="Operations", tab="health",
        watch=request.query_params.get("watch") == "1", readiness=readiness, problem=problem,
        since=since, gateways=watcher.series.replicas,
        parts=None if parts is None else service_health.describe_parts(parts), parts_problem=parts_problem,
        stages=service_health.measure_stages(sums, readiness.get("stages") or {}),
        causes=service_health.count_causes(sums), requests=service_health.build_request_cards(sums),
        store=service_health.build_store_cards(sums), charts=list(filter(has_line, charts)),
    )  # fmt: skip


async def _ask_readiness(visit: Visit) -> tuple[dict[str, Any], str]:
    """Return the answer of /readyz, and why there is none."""
    try:
        return await visit.ask("GET", "/readyz"), ""
    except ProblemError as error:
        return {}, f"The service is not ready: {error.detail}"
    except ClientError as error:
        return {}, f"The service does not answer: {error}"


def _read_parts() -> tuple[list[DeploymentReplicas] | None, str]:
    try:
        return read_deployments(), ""
    except Exception as error:  # the cluster's controller may be away, while the gateways answer
        return None, f"Ray Serve does not say which replicas run ({type(error).__name__})."


async def show_bundles(request: Request) -> Response:
    """Show all bundles, which one is served, and the actions on them."""
    visit = get_visit(request)
    readiness, problem = await _ask_readiness(visit)
    found = await asyncio.to_thread(_read_bundles, visit)
    served = (readiness.get("release") or {}).get("bundle", "")
    return render(
        request, "operations/bundles.html.j2", title="Bundles", tab="bundles", served=served, problem=problem,
        refused=readiness.get("refused"), **found,
    )  # fmt: skip


def _read_bundles(visit: Visit) -> dict[str, Any]:
    store = open_bundles(visit.config)
    states, pointer = open_states(visit.config).read(), store.pointer()
    former = [describe_canary(one) for one in reversed(states.former_canaries)]
    canary = states.canary
    if canary is not None and not canary.is_running:
        former.insert(0, describe_canary(canary))
    return {
        "bundles": bundle_reports.list_bundles(store, states), "live": pointer.live,
        "previous": pointer.previous[-1] if pointer.previous else None, "former": former[:5],
        "canary": describe_canary(canary) if canary is not None and canary.is_running else "",
        "settings": visit.config.canary,
    }  # fmt: skip


async def promote(request: Request) -> Response:
    """Make a bundle live."""
    visit = get_visit(request)
    visit.require_edit("admin")
    bundle = visit.field("bundle")[:LONGEST]
    async with visit.audited("bundles promote", f"bundle {bundle}"):
        await asyncio.to_thread(bundle_commands.promote, visit.config, bundle)
    return redirect(request, "/operations/bundles", f"{bundle} is live; the service switches to it within seconds.")


async def start_canary(request: Request) -> Response:
    """Give a bundle to a share of the people, or change the share."""
    visit = get_visit(request)
    visit.require_edit("admin")
    bundle, share, hours = (visit.field(name)[:LONGEST] for name in ("bundle", "share", "hours"))
    async with visit.audited("bundles promote", f"bundle {bundle} as canary {share}"):
        ends = parse_share(share) == 0
        duration = f"{hours}h" if hours else None
        await asyncio.to_thread(bundle_commands.run_canary, visit.config, bundle, share, duration, None, None)
    said = f"The trial of {bundle} has ended." if ends else f"{bundle} is on trial: {share} of the people get it."
    return redirect(request, "/operations/bundles", said)


async def roll_back(request: Request) -> Response:
    """End a running trial; without one, make the previously live bundle live again."""
    visit = get_visit(request)
    visit.require_edit("admin")
    about = await asyncio.to_thread(bundle_commands.name_rolled_back, visit.config)
    async with visit.audited("bundles rollback", about):
        said = await asyncio.to_thread(bundle_commands.roll_back, visit.config)
    return redirect(request, "/operations/bundles", said)


async def show_checks(request: Request) -> Response:
    """Show the last checks of the data, and of served feature values."""
    return render(request, "operations/checks.html.j2", title="Checks", tab="checks", kinds=list(checks.CHECKS))


async def show_check(request: Request) -> Response:
    """Answer with the outcome of a check, or with a part that asks again while it runs."""
    visit = get_visit(request)
    name = checks.find_check(request.query_params.get("check", ""))
    run = visit.context.commands.find(*checks.name_command(name, visit.config.source))
    missing = await asyncio.to_thread(checks.explain_missing_input, visit.config, name)
    found = await asyncio.to_thread(checks.describe_check, visit.config, name, run)
    return render(
        request, "operations/check.html.j2", name=name, words=checks.CHECKS[name], run=run, missing=missing, found=found
    )


async def run_check(request: Request) -> Response:
    """Run a check in the background."""
    visit = get_visit(request)
    if reason := visit.explain_scope("admin"):
        raise ActionRefused(reason)
    name = checks.find_check(visit.field("check"))
    visit.context.commands.start(*checks.name_command(name, visit.config.source))
    return redirect(request, "/operations/checks")


async def show_audit(request: Request) -> Response:
    """Show who changed what."""
    visit = get_visit(request)
    if not visit.may("admin"):
        return render(request, "operations/audit.html.j2", title="Changes", tab="audit", entries=None)
    without_keys = visit.config.access.keys == "off"
    entries = await asyncio.to_thread(lambda: list(read_entries(visit.config, AUDIT_DAYS * DAY_S)))
    return render(
        request, "operations/audit.html.j2", title="Changes", tab="audit", entries=entries[: -MOST_ENTRIES - 1 : -1],
        days=AUDIT_DAYS, without_keys=without_keys,
    )  # fmt: skip


PAGE = ConsolePage(
    "operations", "Operations",
    (
        Route("/", show_health), Route("/bundles", show_bundles), Route("/checks", show_checks),
        Route("/check", show_check), Route("/audit", show_audit),
        Route("/promote", promote, methods=["POST"]), Route("/canary", start_canary, methods=["POST"]),
        Route("/rollback", roll_back, methods=["POST"]), Route("/run-check", run_check, methods=["POST"]),
    ),
)  # fmt: skip
