"""The page Quality: what lists are like now, by day and by bundle, and two bundles side by side."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.console.background_commands import CommandRun
from handsell.console.figures import bundle_reports, live_lists
from handsell.console.figures.live_lists import Line
from handsell.console.figures.metric_words import METRICS
from handsell.console.page import ConsolePage
from handsell.console.rendering import render
from handsell.console.visit import Visit, get_visit
from handsell.core.errors import BundleError, ConfigError
from handsell.experiments.state import open_states

OLD_S = 900.0  # age from which days are counted again when somebody looks
DAYS = ("7", "28", "90")
LIVE_CHARTS = ("diversity", "novelty", "repeat_rate", "coverage", "gini")
DAY_CHARTS = ("diversity", "coverage", "exposure", "gini", "repeat_rate", "novelty")
# scripts, forms and other hosts are off; the report's own styles and figures are on
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"


async def show_now(request: Request) -> Response:
    """Show the lists of the last hour, and how they have changed over the last hours."""
    watcher = get_visit(request).context.watcher
    await watcher.refresh()
    sums, since = live_lists.count_lists(watcher.series)
    surfaces = live_lists.list_surfaces(sums)
    surface = request.query_params.get("surface", "")
    if surface and surface not in surfaces:
        surface = ""
    points = list(watcher.series.list_points())
    charts = [
        build_chart(METRICS[name].title, live_lists.draw_lines(points, name), METRICS[name].kind == "share")
        for name in LIVE_CHARTS
    ]
    return render(
        request, "quality/now.html.j2", title="Quality", tab="now", problem=watcher.problem, since=since,
        cards=live_lists.build_cards(sums, surface), surfaces=surfaces, surface=surface,
        lists=sums.sum("handsell_slates_total"), charts=list(filter(has_line, charts)),
    )  # fmt: skip


async def show_days(request: Request) -> Response:
    """Show the page of lists by day; htmx asks for the figures."""
    visit = get_visit(request)
    return render(request, "quality/days.html.j2", title="Lists by day", tab="days", **_read_choice(visit, request))


async def show_day_figures(request: Request) -> Response:
    """Answer with the figures by day, or with a part that asks again while they are counted."""
    visit = get_visit(request)
    chosen = _read_choice(visit, request)
    run = find_fresh_run(visit, *_name_command(visit, chosen))
    if run.value is None:
        return render(request, "quality/day_figures.html.j2", run=run, charts=[], days=[], last=[], **chosen)
    days: list[dict[str, Any]] = run.value
    charts = []
    for name in DAY_CHARTS:
        title = "Places by size of the creator" if name == "exposure" else METRICS[name].title
        in_percent = name == "exposure" or METRICS[name].kind == "share"
        chart = build_chart(title, live_lists.draw_days(days, name), in_percent)
        charts += [chart] if has_line(chart) else []
    last = live_lists.describe_day(days[-1]) if days else []
    return render(request, "quality/day_figures.html.j2", run=run, charts=charts, days=days, last=last, **chosen)


def _name_command(visit: Visit, chosen: dict[str, Any]) -> list[str]:
    surface = ["--surface", chosen["surface"]] if chosen["surface"] else []
    return ["quality", str(visit.config.source), "--days", chosen["days_back"], *surface, "--json"]


def _read_choice(visit: Visit, request: Request) -> dict[str, Any]:
    """Return the days and the surface that the URL names; others are as without."""
    surface, days = request.query_params.get("surface", ""), request.query_params.get("days", "28")
    return {
        "surface": surface if surface in visit.config.surfaces else "", "days_back": days if days in DAYS else "28",
        "surfaces": list(visit.config.surfaces),
    }  # fmt: skip


def find_fresh_run(visit: Visit, *arguments: str) -> CommandRun:
    """Return the last run of a command; start it if there is none, or an old one."""
    commands = visit.context.commands
    run = commands.find(*arguments)
    if run is None or (run.is_over and run.age_s > OLD_S):
        run = commands.start(*arguments)
    return run


async def show_bundles(request: Request) -> Response:
    """Show the reports of all bundles, and one of them in words."""
    visit = get_visit(request)
    chosen = request.query_params.get("bundle", "")
    found = await asyncio.to_thread(_read_bundles, visit, chosen)
    return render(request, "quality/bundles.html.j2", title="Reports of bundles", tab="bundles", **found)


def _read_bundles(visit: Visit, chosen: str) -> dict[str, Any]:
    store = open_bundles(visit.config)
    bundles = bundle_reports.list_bundles(store, open_states(visit.config).read())
    live = next((one.bundle for one in bundles if one.role == "live"), bundles[0].bundle if bundles else "")
    chosen = chosen or live
    report, problem = None, ""
    if chosen:
        try:
            report = bundle_reports.describe_report(bundle_reports.read_report(store, chosen))
        except BundleError as error:
            problem = str(error)
    trend = bundle_reports.list_trend(bundles)
    charts = [
        build_chart(METRICS[name].title, [Line("lists", list(points))], METRICS[name].kind == "share")
        for name, points in trend.items()
        if len(points) > 1
    ]
    return {"bundles": bundles, "chosen": chosen, "report": report, "problem": problem, "charts": charts}


async def show_comparison(request: Request) -> Response:
    """Show two bundles side by side."""
    visit = get_visit(request)
    one, other = request.query_params.get("one", ""), request.query_params.get("other", "")
    found = await asyncio.to_thread(_compare, visit, one, other)
    return render(request, "quality/comparison.html.j2", title="Compare two bundles", tab="comparison", **found)


def _compare(visit: Visit, one: str, other: str) -> dict[str, Any]:
    store = open_bundles(visit.config)
    bundles = bundle_reports.list_bundles(store, open_states(visit.config).read())
    one, other = bundle_reports.choose_pair(bundles, one, other)
    compared = _read_comparison(store, one, other) if one and other else None
    options = [(b.bundle, f"{b.bundle}{' (' + b.role + ')' if b.role else ''}") for b in bundles]
    return {"options": options, "one": one, "other": other, "compared": compared}


def _read_comparison(store: BundleStore, one: str, other: str) -> bundle_reports.ReportComparison:
    if one == other:
        raise ConfigError("bundle: expected two different bundles, got the same one twice: choose another")
    return bundle_reports.compare_reports(*(bundle_reports.read_report(store, name) for name in (one, other)))


async def show_whole_report(request: Request) -> Response:
    """Answer with a bundle's own report, which has styles and figures in itself."""
    visit = get_visit(request)
    bundle = request.query_params.get("bundle", "")
    path = await asyncio.to_thread(
        lambda: bundle_reports.find_report_file(open_bundles(visit.config), bundle, bundle_reports.PAGE)
    )
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def build_chart(title: str, lines: list[Line], in_percent: bool = False) -> dict[str, Any]:
    """Return the arguments of the macro `chart` for lines of the same times."""
    factor, unit = (100.0, " (%)") if in_percent else (1.0, "")
    return {
        "title": title + unit,
        "x": [time for time, _ in lines[0].points] if lines else [],
        "series": {
            line.name: [
                None if value is None or not math.isfinite(value) else float(f"{value * factor:.4g}")
                for _, value in line.points
            ]
            for line in lines
        },
    }


def has_line(chart: dict[str, Any]) -> bool:
    """Return whether a chart has two points at least, and a value: without tags, say, lists have no variety."""
    values = [value for values in chart["series"].values() for value in values]
    return len(chart["x"]) > 1 and any(value is not None for value in values)


PAGE = ConsolePage(
    "quality", "Quality",
    (
        Route("/", show_now), Route("/days", show_days), Route("/day-figures", show_day_figures),
        Route("/bundles", show_bundles), Route("/comparison", show_comparison), Route("/report", show_whole_report),
    ),
)  # fmt: skip
