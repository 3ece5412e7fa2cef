"""The figures of the report, drawn from the data of `report.json`.

Each figure is a function that draws on axes and returns False if the report has no data for it. They use matplotlib's
object interface with SVG output, which needs neither a display nor global state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Report = dict[str, Any]

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
KINDS = {"funnel": "#0b7a75", "ranker": "#4c9f9b", "blend": "#8cc5c2", "oracle": "#1f2933"}
RETRIEVERS = ("#3d5a98", "#d1793b", "#8a5fa8", "#b94a62", "#6b8e3d", "#c2a13a", "#5b8bb0", "#a37c5b")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "handsell",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 9,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
}


def render_svg(
    plot: Callable[[Axes, Report], bool], report: Report, width: float = 6.2, height: float = 3.6
) -> str | None:
    """Return one figure as SVG text; None if the report has no data for it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        if not plot(figure.add_subplot(), report):
            return None
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg") :]


def draw_headline(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 with its 95 % interval, one row per model."""
    names = list(report["models"])[::-1]
    for row, name in enumerate(names):
        entry = report["models"][name]
        mean, (low, high) = entry["metrics"][report["headline"]], entry["interval"]
        if mean is not None:
            size = 8 if entry["kind"] == "funnel" else 6
            draw_interval(axes, row, (mean, low, high), color=_color(report, name), markersize=size)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("NDCG@10, mean and 95 % interval")
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    return bool(names)


def draw_interval(axes: Axes, row: int, figures: tuple[float, float, float], color: str, **marker: Any) -> None:
    """Draw (mean, low, high) as one row of a chart, and write the mean next to it."""
    mean, low, high = figures
    axes.plot([low, high], [row, row], color=color, linewidth=2.4, solid_capstyle="round", alpha=0.55)
    options: dict[str, Any] = {"marker": "o", "markersize": 6, **marker}
    axes.plot([mean], [row], color=color, **options)
    axes.annotate(
        f"{mean:.3f}", (high, row), (6, 0), textcoords="offset points", va="center", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def draw_recall(axes: Axes, report: Report) -> bool:
    """Draw recall by list length, for retrievers, blend and ranker."""
    depths: set[int] = set()
    for name, entry in report["models"].items():
        points = sorted(
            (int(metric.removeprefix("recall@")), value)
            for metric, value in entry["metrics"].items()
            if metric.startswith("recall@") and value is not None
        )
        if len(points) < 2 or entry["kind"] not in ("retriever", "blend", "ranker"):
            continue
        bold = entry["kind"] != "retriever"
        axes.plot(
            *zip(*points, strict=True), "o-", label=name, color=_color(report, name), markersize=4,
            linewidth=2.6 if bold else 1.4, zorder=3 if bold else 2,
        )  # fmt: skip
        depths |= {depth for depth, _ in points}
    if not depths:
        return False
    axes.set_xscale("log")
    axes.set_xticks(sorted(depths), [str(depth) for depth in sorted(depths)])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("list length")
    axes.set_ylabel("recall")
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left")
    return True


def draw_segments(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 of popularity, the best single retriever and the funnel by user segment."""
    parts = {name: s for name, s in report["segments"].items() if s["requests"]}
    names = [n for n in dict.fromkeys(("popularity", report["best_retriever"], "funnel")) if n in report["models"]]
    if not parts or not names:
        return False
    width = 0.8 / len(names)
    for column, name in enumerate(names):
        for place, part in enumerate(parts.values()):
            found = part["models"][name]
            if found["mean"] is None:
                continue
            at = place + (column - (len(names) - 1) / 2) * width
            label = name if place == 0 else None
            axes.bar(at, found["mean"], width * 0.9, color=_color(report, name), label=label)
            axes.plot([at, at], [found["low"], found["high"]], color=INK, linewidth=1)
    ticks = [f"{name}\n{part['requests']} requests" for name, part in parts.items()]
    axes.set_xticks(range(len(parts)), ticks)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_ylabel("NDCG@10")
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=8.5, ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return True


def draw_importance(axes: Axes, report: Report) -> bool:
    """Draw the twenty features of the ranker with the highest share of gain."""
    top = [entry for entry in report["feature_importance"][:20] if entry["share"] > 0][::-1]
    axes.barh(range(len(top)), [entry["share"] for entry in top], color=KINDS["ranker"], height=0.7)
    axes.set_yticks(range(len(top)), [entry["feature"] for entry in top], fontsize=9)
    axes.set_xlabel("share of the ranker's total gain")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return bool(top)


def draw_trade_off(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 over catalog coverage, one point per model."""
    drawn = False
    for name, entry in report["models"].items():
        x, y = entry["metrics"]["coverage@10"], entry["metrics"][report["headline"]]
        if x is None or y is None:
            continue
        axes.plot([x], [y], "o", color=_color(report, name), markersize=9 if entry["kind"] == "funnel" else 6)
        below = -11 if entry["kind"] == "ranker" else 3  # the ranker is often at the same place as the funnel
        axes.annotate(name, (x, y), (7, below), textcoords="offset points", fontsize=9)
        drawn = True
    axes.set_xlabel("share of the catalog in any list of ten")
    axes.set_ylabel("NDCG@10")
    axes.margins(x=0.18, y=0.12)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid()
    return drawn


CURVES = {
    "diversity": "diversity of a list",
    "creator_coverage": "share of creators in any list of ten",
    "calibration_error": "calibration error, nats (lower is better)",
    "novelty": "novelty, bits",
}


def draw_curve(axes: Axes, rows: list[dict[str, Any]], metric: str) -> bool:
    """Draw NDCG@10 over a list metric: one line per family of re-ranking, which begins at the ranker's own order."""
    known = [row for row in rows if row[metric] is not None and row["ndcg"] is not None]
    plain = [row for row in known if row["family"] == "plain"]
    families = [f for f in dict.fromkeys(row["family"] for row in known) if f not in ("plain", "shipped")]
    for place, family in enumerate(families):
        points = plain + sorted((r for r in known if r["family"] == family), key=lambda r: r["strength"])
        x, y = [row[metric] for row in points], [row["ndcg"] for row in points]
        axes.plot(x, y, "o-", markersize=3, linewidth=1.4, label=family, color=RETRIEVERS[place % len(RETRIEVERS)])
    for row in known:
        if row["family"] in ("plain", "shipped"):
            color = KINDS["funnel"] if row["family"] == "shipped" else INK
            axes.plot([row[metric]], [row["ndcg"]], "o", color=color, markersize=8, zorder=4)
            axes.annotate(row["family"], (row[metric], row["ndcg"]), (6, 5), textcoords="offset points", fontsize=9)
    if plain and families:
        axes.axhline(0.98 * plain[0]["ndcg"], color=FAINT, linewidth=1, linestyle=":")
    axes.set_xlabel(CURVES[metric])
    axes.set_ylabel("NDCG@10")
    axes.grid()
    return bool(families)


def draw_diversity_curve(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 over diversity, with a legend."""
    if not draw_curve(axes, report["curve"], "diversity"):
        return False
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    return True


def draw_list_segments(axes: Axes, report: Report) -> bool:
    """Draw the change of each list metric from the ranker's own order to the funnel, by user segment."""
    parts = {name: s["lists"] for name, s in report["segments"].items() if s["requests"]}
    every: dict[str, Any] = next(iter(parts.values()), {})
    metrics = [m for m in every if any(_percent_change(lists, m) is not None for lists in parts.values())]
    height = 0.8 / max(len(parts), 1)
    for column, (name, lists) in enumerate(parts.items()):
        for row, metric in enumerate(metrics):
            at = len(metrics) - 1 - row + ((len(parts) - 1) / 2 - column) * height
            color = RETRIEVERS[column % len(RETRIEVERS)]
            axes.barh(at, _percent_change(lists, metric) or 0.0, height * 0.9, color=color, label=None if row else name)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(metrics)), [m.replace("_", " ") for m in reversed(metrics)])
    axes.set_xlabel("funnel compared with the ranker's own order, %")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    if metrics:
        axes.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return bool(metrics)


def _percent_change(lists: dict[str, Any], metric: str) -> float | None:
    """Return the relative change in percent; None if the ranker's value is missing or not positive."""
    ours, plain = (lists.get(metric, {}).get(name) for name in ("funnel", "ranker"))
    return None if ours is None or plain is None or plain <= 0 else 100 * (ours / plain - 1)


def render_curves(rows: list[dict[str, Any]]) -> str:
    """Return `draw_curve` for every metric of CURVES as SVG text; dotted lines: 2 % below the ranker's own order."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 8), layout="constrained")
        for axes, metric in zip(figure.subplots(2, 2).ravel(), CURVES, strict=True):
            draw_curve(axes, rows, metric)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=9, ncols=5, loc="outside upper center")
        out = StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def draw_sources(axes: Axes, report: Report) -> bool:
    """Draw the relevant items that each source returned: unique hits, and hits shared with other sources."""
    names = sorted(report["sources"], key=lambda name: report["sources"][name]["hits"])
    for row, name in enumerate(names):
        found = report["sources"][name]
        own, shared = found["unique_hits"], found["hits"] - found["unique_hits"]
        axes.barh(row, own, color=KINDS["funnel"], height=0.65, label="unique" if not row else None)
        axes.barh(row, shared, left=own, color="#cfd6dd", height=0.65, label="shared" if not row else None)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("relevant items among the candidates")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return any(found["hits"] for found in report["sources"].values())


def color_of(kinds: Mapping[str, str], name: str) -> str:
    """Return the color of a model, the same in every figure; `kinds` maps each model to its kind."""
    if kinds[name] in KINDS:
        return KINDS[kinds[name]]
    if name == "popularity":
        return FAINT
    singles = sorted(n for n, kind in kinds.items() if kind not in KINDS and n != "popularity")
    return RETRIEVERS[singles.index(name) % len(RETRIEVERS)]


def _color(report: Report, name: str) -> str:
    return color_of({n: entry["kind"] for n, entry in report["models"].items()}, name)
