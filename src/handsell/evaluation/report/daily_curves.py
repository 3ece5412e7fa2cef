"""Curves over days, one line per policy: the figures of a simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from handsell.evaluation.report.plots import INK, KINDS, RETRIEVERS, Report, render_svg

Curves = Mapping[str, Sequence[float | None]]
COLORS = (KINDS["funnel"], *RETRIEVERS)


def render_daily_curves(curves: Curves, label: str, marked_days: Sequence[int] = ()) -> str | None:
    """Return the curves of each policy over days from 1 as SVG; days with a training have a vertical line."""

    def draw(axes: Axes, _: Report) -> bool:
        some = False
        for number, (name, values) in enumerate(curves.items()):
            points = [math.nan if value is None else value for value in values]
            some |= any(math.isfinite(point) for point in points)
            color = INK if name == "oracle" else COLORS[number % len(COLORS)]
            axes.plot(range(1, len(points) + 1), points, color=color, linewidth=1.8, label=name)
        for day in marked_days:
            axes.axvline(day + 0.5, color=INK, alpha=0.15, linewidth=1)
        axes.set_xlabel("day")
        axes.set_title(label, fontsize=10, loc="left")
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8)
        return some

    return render_svg(draw, {}, 6.4, 3.4)
