"""Render `report.html`: one file that contains its figures and needs no network."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handsell.evaluation.report import plots, served_plots
from handsell.evaluation.report.model_order import order_by_kind
from handsell.evaluation.served import LONG_PAUSE, SHORT_PAUSE

COLUMNS = (
    "ndcg@10", "recall@10", "recall@50", "recall@1000", "mrr@10", "hit_rate@10",
    "coverage@10", "creator_coverage@10", "diversity@10", "novelty@10", "serendipity@10", "calibration_error@10",
    "small_creators@10", "drift@10", "repeat_rate@10", "gini@10",
)  # fmt: skip
NO_DECAY_DAYS = 1e5  # half-life from which on the age of an event makes no difference
FIGURES = {
    "served": (served_plots.draw_served, 6.0, 4.0),
    "time_away": (served_plots.draw_time_away, 6.0, 4.2),
    "strength": (served_plots.draw_strength, 6.0, 3.0),
    "headline": (plots.draw_headline, 6.4, 3.6),
    "recall": (plots.draw_recall, 6.4, 3.8),
    "segments": (plots.draw_segments, 6.4, 3.6),
    "sources": (plots.draw_sources, 6.4, 3.2),
    "importance": (plots.draw_importance, 6.4, 5.0),
    "trade_off": (plots.draw_trade_off, 6.4, 3.8),
    "curve": (plots.draw_diversity_curve, 6.4, 3.8),
    "lists": (plots.draw_list_segments, 6.4, 5.4),
}


def render(report: dict[str, Any]) -> str:
    """Return the page for a report of `handsell.evaluation.report.report`."""
    report = {"served": {}, "by_time_away": {}, "choices": {}, **report}
    environment = Environment(
        loader=PackageLoader("handsell.evaluation.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= FILTERS
    figures = {name: plots.render_svg(plot, report, width, height) for name, (plot, width, height) in FIGURES.items()}
    models, served, away = report["models"], report["served"].get("models", {}), report["by_time_away"]
    columns = [c for c in COLUMNS if any(c in entry["metrics"] for entry in models.values())]
    return environment.get_template("report.html.j2").render(
        r=report, figures=figures, columns=columns, best={c: _best(report, c) for c in columns},
        soon=SHORT_PAUSE, late=LONG_PAUSE,
        served=order_by_kind({n: e["kind"] for n, e in served.items()}, {n: e["ndcg"] for n, e in served.items()}),
        away=order_by_kind(away.get("kinds", {}), {n: v[0] for n, v in away.get("models", {}).items()}),
    )  # fmt: skip


def _best(report: dict[str, Any], metric: str) -> float | None:
    """Return the best value of a metric among all models but the oracle; None if no direction is better."""
    better = report["definitions"].get(metric.split("@")[0], {}).get("better")
    values = [entry["metrics"].get(metric) for entry in report["models"].values() if entry["kind"] != "oracle"]
    known = [v for v in values if v is not None]
    if not known or better not in ("higher", "lower"):
        return None
    return max(known) if better == "higher" else min(known)


def _figure(svg: str, alt: str) -> str:
    """Embed a figure as a data URL: nothing is fetched, and the ids of two figures cannot collide."""
    from markupsafe import Markup

    encoded = base64.b64encode(svg.encode()).decode()
    return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(alt, encoded)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _format_signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _count(value: Any) -> str:
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %".replace("-", "−")


def _history(settings: dict[str, Any] | None) -> str:
    """Describe how a source weighs the events of a history; a dash if it has no such setting."""
    if not settings:
        return "–"
    days, events, dislikes = (settings.get(key) for key in ("half_life_days", "half_life_events", "dislikes"))
    half_lives = [] if days is None or days >= NO_DECAY_DAYS else [f"{days:g} days"]
    half_lives += [] if events is None else [f"{events:g} later likes"]
    if half_lives:
        parts = [f"events count half after {' and after '.join(half_lives)}"]
    else:
        parts = ["events decay as configured" if days is None else "events count the same at any age"]
    if dislikes is not None:
        share = {0.0: "do not count", 1.0: "count in full"}.get(dislikes, f"count at {dislikes:.0%}")
        parts.append(f"dislikes {share}")
    return ", ".join(parts)


FILTERS = {
    "figure": _figure, "number": _number, "signed": _format_signed, "words": _words, "count": _count,
    "percent": _percent, "history": _history,
}  # fmt: skip
