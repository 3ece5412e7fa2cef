"""Figures of the report's sections `served`, `by_time_away` and `choices`.

Each is a function for `plots.render_svg` and returns False if its section is empty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handsell.evaluation.report.model_order import order_by_kind
from handsell.evaluation.report.plots import FAINT, INK, KINDS, Report, color_of, draw_interval


def draw_served(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 with its 95 % interval, one row per model, and a dotted line at the best simple baseline."""
    rows = report["served"].get("models", {})
    kinds = {name: entry["kind"] for name, entry in rows.items()}
    names = order_by_kind(kinds, {name: entry["ndcg"] for name, entry in rows.items()})[::-1]
    models = {name: kind for name, kind in kinds.items() if kind != "baseline"}
    best = report["served"].get("best_baseline")
    for row, name in enumerate(names):
        entry = rows[name]
        if entry["ndcg"] is None:
            continue
        color = color_of(models, name) if name in models else INK if name == best else FAINT
        marker = {"marker": "o", "markersize": 8 if name == "funnel" else 6} if name in models else {"marker": "D"}
        draw_interval(axes, row, (entry["ndcg"], entry["low"], entry["high"]), color, **{"markersize": 5, **marker})
    if best is not None and rows[best]["ndcg"] is not None:
        axes.axvline(rows[best]["ndcg"], color=INK, linewidth=1, linestyle=":", zorder=1)
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in ("funnel", best) else "normal")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("NDCG@10, mean and 95 % interval")
    axes.set_xlim(left=0)
    axes.margins(x=0.12)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    _set_height(axes, 0.9 + 0.25 * len(names))
    return bool(names)


def draw_time_away(axes: Axes, report: Report) -> bool:
    """Draw NDCG@10 over the time since the last event, with a name at the end of each line."""
    section = report["by_time_away"]
    lines = {n: v for n, v in section.get("models", {}).items() if None not in v}
    if not lines:
        return False
    seconds, names = ([pause[key] for pause in section["pauses"]] for key in ("seconds", "name"))
    for name, values in lines.items():
        is_stage = section["kinds"][name] in KINDS
        axes.plot(
            seconds, values, "o-", color=color_of(section["kinds"], name), zorder=3 if is_stage else 2,
            linewidth=3.0 if name == "funnel" else 2.2 if is_stage else 1.1, markersize=5 if is_stage else 2.5,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(seconds, [name.replace(" ", "\n") for name in names])  # the last ticks are close together
    axes.minorticks_off()
    axes.set_xlim(seconds[0] / 2, seconds[-1] * 1.6)
    axes.set_ylim(0, 1.08 * (max(max(values) for values in lines.values()) or 1.0))
    axes.set_xlabel("time between the last event and the request")
    axes.set_ylabel("NDCG@10")
    axes.grid(axis="y")
    _name_line_ends(axes, {n: v[-1] for n, v in lines.items()}, section["kinds"])
    return True


def draw_strength(axes: Axes, report: Report) -> bool:
    """Draw the change of NDCG@10 by strength of re-ranking, and the tolerated loss."""
    found = report["choices"].get("strength") or {}
    tried = [one for one in found.get("tried", ()) if one["relative"] is not None]
    if len(tried) < 2:
        return False
    for one in tried:
        chosen = one["strength"] == found["value"]
        color, at, mean = KINDS["funnel"] if chosen else FAINT, one["strength"], 100 * one["relative"]
        if one["relative_low"] is not None:
            axes.plot([at, at], [100 * one["relative_low"], mean], color=color, linewidth=2.4, alpha=0.55)
            axes.plot([at], [100 * one["relative_low"]], "_", color=color, markersize=9, markeredgewidth=1.6)
        axes.plot([at], [mean], "o", color=color, markersize=8 if chosen else 6, zorder=3)
        if chosen:
            axes.annotate(
                "picked", (at, mean), (0, 9), textcoords="offset points", ha="center", fontsize=9, fontweight="bold"
            )
    tolerated = -100 * found["tolerance"]
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.axhline(tolerated, color=INK, linewidth=1, linestyle=":")
    axes.annotate(
        "tolerated loss", (1, tolerated), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=9,
    )  # fmt: skip
    axes.set_xticks([one["strength"] for one in tried], [f"{one['strength']:g}" for one in tried])
    axes.margins(x=0.06, y=0.16)
    axes.set_xlabel("strength of re-ranking")
    axes.set_ylabel("change of NDCG@10, %")
    axes.grid(axis="y")
    return True


def _name_line_ends(axes: Axes, ends: Mapping[str, float], kinds: Mapping[str, str]) -> None:
    """Write the names of lines right of the axes, moved apart where lines end close together."""
    names = sorted(ends, key=lambda name: ends[name])
    bottom, top = axes.get_ylim()
    lines_of_text = 3.8 * _height(axes)  # that fit next to the axes
    places = move_apart([ends[name] for name in names], (top - bottom) / lines_of_text)
    lift = max(0.0, bottom - places[0])
    for name, place in zip(names, places, strict=True):
        color = color_of(kinds, name)
        axes.annotate(
            name, (1, ends[name]), (1.06, place + lift), xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"), va="center", fontsize=9, annotation_clip=False,
            fontweight="bold" if name == "funnel" else "normal",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1.1, "shrinkA": 4, "shrinkB": 0,
                        "relpos": (0, 0.5), "patchA": None},
        )  # fmt: skip


def move_apart(values: Sequence[float], gap: float) -> list[float]:
    """Return positions at least `gap` apart for ascending values; a group that is moved apart keeps its center."""
    groups: list[tuple[float, int]] = []  # center and size
    for value in values:
        center, size = value, 1
        while groups and groups[-1][0] + gap * (groups[-1][1] + size) / 2 > center + 1e-12:
            before, count = groups.pop()
            center, size = (before * count + center * size) / (count + size), count + size
        groups.append((center, size))
    return [center + gap * (n - (size - 1) / 2) for center, size in groups for n in range(size)]


def _height(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    return figure.get_figheight() if isinstance(figure, Figure) else math.nan


def _set_height(axes: Axes, inches: float) -> None:
    figure = axes.get_figure(root=True)
    if isinstance(figure, Figure):
        figure.set_figheight(inches)
