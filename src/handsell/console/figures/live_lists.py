"""What lists are like now and over the last hours, from the service's own metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from handsell.console.figures.metric_words import CREATOR_WORDS, METRICS
from handsell.console.live.series_sums import SeriesSums
from handsell.console.live.service_series import Point, ServiceSeries

RECENT = 60  # minutes of a card
HISTOGRAMS = {
    "diversity": "handsell_slate_diversity", "novelty": "handsell_slate_novelty_bits",
    "repeat_rate": "handsell_slate_repeat_rate",
}  # fmt: skip
GAUGES = {"coverage": "handsell_exposure_coverage", "gini": "handsell_exposure_gini"}


@dataclass(frozen=True, slots=True)
class Card:
    """One figure with its name and meaning."""

    title: str
    value: str
    meaning: str
    state: str = ""  # good, warning, bad; empty: neither


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: (time in s, value or None where there is none)."""

    name: str
    points: list[tuple[float, float | None]]


def count_lists(series: ServiceSeries) -> tuple[SeriesSums, str]:
    """Return what was counted lately, or since the gateways started where that is nothing; and since when in words."""
    recent = series.count_recent(RECENT)
    if recent.sum("handsell_slates_total"):
        minutes = max(round((recent.seconds or 0) / 60), 1)
        if minutes >= RECENT:
            return recent, "the last hour"
        return recent, f"the last {minutes} minutes" if minutes > 1 else "the last minute"
    return series.count_since_start(), "the time since the service started"


def build_cards(sums: SeriesSums, surface: str = "") -> list[Card]:
    """Return the figures of the lists of a surface, or of all."""
    labels = {"surface": surface} if surface else {}
    slates = sums.sum("handsell_slates_total", **labels)
    shown = [Card("Lists", f"{slates:,.0f}", "Lists of recommendations that were answered.")]
    for name, histogram in HISTOGRAMS.items():
        shown.append(_card(name, sums.mean(histogram, **labels)))
    for name, gauge in GAUGES.items():
        value = sums.gauge(gauge)
        shown.append(_card(name, value, " Over the last 5,000 lists of a gateway, all surfaces."))
    items = sums.sum("handsell_explored_items_total", **labels)
    shown.append(
        Card(
            "Tried out", f"{items / slates:.2f}" if slates else "–",
            "Items of a list that were drawn at random, to learn what people like.",
        )
    )  # fmt: skip
    if not surface:
        cold, short = (sums.sum(f"handsell_{name}_total") for name in ("cold_starts", "short_slates"))
        shown.append(Card("For new people", _share(cold, slates), "Lists for people of whom nothing is known yet."))
        shown.append(
            Card(
                "Too short", _share(short, slates), "Lists with fewer items than were asked for.",
                "warning" if slates and short / slates > 0.05 else "",
            )
        )  # fmt: skip
    return shown


def list_surfaces(sums: SeriesSums) -> list[str]:
    return sorted(sums.by("handsell_slates_total", "surface"))


def draw_lines(points: Sequence[Point], metric: str) -> list[Line]:
    """Return a metric over the last hours: a line by surface, or one line for a metric of all lists."""
    if metric in GAUGES:
        return [Line("all lists", [(time, sums.gauge(GAUGES[metric])) for time, sums in points])]
    histogram = HISTOGRAMS[metric]
    surfaces = sorted({surface for _, sums in points for surface in sums.by(f"{histogram}_count", "surface")})
    return [Line(name, [(time, sums.mean(histogram, surface=name)) for time, sums in points]) for name in surfaces]


def describe_day(day: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of a day of `handsell quality --json`."""
    rows = [(METRICS[name].title, METRICS[name].show(day[name])) for name in (*HISTOGRAMS, *GAUGES)]
    exposure = {words: day["exposure"].get(size) for size, words in CREATOR_WORDS.items()}
    return rows + [(f"Places for {words}", f"{share:.0%}") for words, share in exposure.items() if share is not None]


def draw_days(days: list[dict[str, Any]], metric: str) -> list[Line]:
    """Return a metric of `handsell quality --json` by day; `exposure`: a line for each size of creators."""
    times = [datetime.fromisoformat(day["day"]).replace(tzinfo=UTC).timestamp() for day in days]
    if metric == "exposure":
        rows = {words: [day["exposure"].get(size) for day in days] for size, words in CREATOR_WORDS.items()}
        return [Line(name, list(zip(times, values, strict=True))) for name, values in rows.items()]
    return [Line("all lists", [(time, day[metric]) for time, day in zip(times, days, strict=True)])]


def find_last(lines: list[Line]) -> Iterator[tuple[str, float]]:
    """Yield the last known value of each line, for the text that stands for a chart."""
    for line in lines:
        known = [value for _, value in line.points if value is not None]
        if known:
            yield line.name, known[-1]


def _card(name: str, value: float | None, more: str = "") -> Card:
    words = METRICS[name]
    return Card(words.title, words.show(value), words.meaning + more)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"
