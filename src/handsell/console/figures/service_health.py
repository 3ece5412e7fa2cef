"""How the service is: its parts and their times, what was degraded, requests that failed, the store and its readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handsell.console.figures.live_lists import Card, Line
from handsell.console.live.series_sums import SeriesSums
from handsell.console.live.service_series import Point
from handsell.serving.telemetry.deployment_status import DeploymentReplicas

STAGES = {
    "features": ("Reads the person's profile", ""),
    "candidates": ("Finds candidates", "Candidates"),
    "ranking": ("Scores candidates", "Ranking"),
    "reranking": ("Composes the list", "Reranking"),
}
DEPLOYMENTS = {
    "Gateway": "Answers requests", "Candidates": "Finds candidates", "Ranking": "Scores candidates",
    "Reranking": "Composes the list", "EventLog": "Stores events and lists",
    "StreamProcessor": "Keeps people's profiles current", "ExperimentGuard": "Watches experiments and canaries",
    "Console": "This console",
}  # fmt: skip
CAUSES = {
    "features": "people's profiles could not be read in time: their recent events alone were used",
    "candidates": "no candidates came in time: popular items were shown",
    "ranking": "candidates were not scored in time: the order of the sources was kept",
    "reranking": "lists were not composed in time: the order of the scores was kept",
}
LISTS = ("/v1/recommendations", "/v1/users/{user_id}/recommendations")
SLOW_S, MOST_FAILED, MOST_DEGRADED = 0.32, 0.001, 0.01  # the objectives of docs/monitoring.md
LATE_S = 60.0
SHORTEST_S = 15.0  # that a rate is computed from
READERS = {"processor": "Profiles", "compaction": "Nightly copy"}


@dataclass(frozen=True, slots=True)
class StageTimes:
    """One stage of a request."""

    name: str
    words: str
    status: str  # ok, missing, or empty where it is not known
    calls: int
    median_ms: float | None
    late_ms: float | None  # 95 of 100 calls are faster


@dataclass(frozen=True, slots=True)
class PartRow:
    """One deployment with its replicas."""

    words: str
    name: str
    state: str  # good, warn, bad
    replicas: str
    message: str


@dataclass(frozen=True, slots=True)
class CauseRow:
    """Why answers lacked a part."""

    cause: str
    words: str
    answers: int
    share: float | None


def measure_stages(sums: SeriesSums, readiness: dict[str, str]) -> list[StageTimes]:
    """Return the stages in the order of a request; `readiness` is `stages` of /readyz."""
    rows = []
    for name, (words, _) in STAGES.items():
        histogram = "handsell_stage_seconds"
        calls = round(sums.sum(f"{histogram}_count", stage=name))
        middle, late = (_to_ms(sums.quantile(histogram, share, stage=name)) for share in (0.5, 0.95))
        rows.append(StageTimes(name, words, readiness.get(name, ""), calls, middle, late))
    return rows


def describe_parts(found: Sequence[DeploymentReplicas]) -> list[PartRow]:
    """Return the deployments in words; those that are not healthy come first."""
    rows = []
    for one in found:
        others = "".join(f", {count} {state.lower().replace('_', ' ')}" for state, count in one.others.items() if count)
        state = "good" if one.status == "HEALTHY" else "bad" if "UNHEALTHY" in one.status or not one.running else "warn"
        replicas = f"{one.running} running{others}"
        rows.append(
            PartRow(
                DEPLOYMENTS.get(one.deployment, _name_part(one.deployment)),
                one.deployment,
                state,
                replicas,
                one.message,
            )
        )
    order = ("bad", "warn", "good")
    return sorted(rows, key=lambda row: order.index(row.state))


def count_causes(sums: SeriesSums) -> list[CauseRow]:
    """Return the causes of degraded answers, the most frequent first."""
    slates = sums.sum("handsell_slates_total")
    causes = sums.by("handsell_degraded_total", "cause")
    rows = [
        CauseRow(
            cause,
            CAUSES.get(cause, f"{cause} did not answer in time"),
            round(count),
            count / slates if slates else None,
        )
        for cause, count in causes.items()
        if count
    ]
    return sorted(rows, key=lambda row: -row.answers)


def build_request_cards(sums: SeriesSums) -> list[Card]:
    """Return requests, failures, and how long lists take."""
    by_status = sums.by("handsell_requests_total", "status")
    total = sum(by_status.values())
    failed = sum(count for status, count in by_status.items() if status.startswith("5"))
    refused = sum(count for status, count in by_status.items() if status.startswith("4"))
    slates, degraded = sums.sum("handsell_slates_total"), sums.sum("handsell_degraded_slates_total")
    times = [_quantile_of_lists(sums, share) for share in (0.5, 0.99)]
    waiting, lost = sums.gauge("handsell_waiting_requests"), sums.sum("handsell_impressions_lost_total")
    per_minute = f"{total / sums.seconds * 60:,.0f} a minute" if sums.seconds else f"{total:,.0f}"
    late = times[1] or 0.0
    return [
        Card("Requests", per_minute, "All requests to the service."),
        Card(
            "Failed", _share(failed, total), "Answers with an error of the service (5xx).",
            "bad" if failed > MOST_FAILED * total else "",
        ),
        Card("Refused", _share(refused, total), "Requests that were wrong or not allowed (4xx)."),
        Card(
            "Without a part", _share(degraded, slates), "Lists that were answered without a part that failed.",
            "warn" if degraded > MOST_DEGRADED * slates else "",
        ),
        Card("Middle time of a list", _show_ms(times[0]), "Half of the lists are answered faster."),
        Card(
            "Slowest of 100", _show_ms(times[1]), "99 of 100 lists are answered faster.",
            "warn" if late > SLOW_S else "",
        ),
        Card("Waiting", "–" if waiting is None else f"{waiting:,.0f}", "Requests that wait for a free place now."),
        Card(
            "Lists not recorded", f"{lost:,.0f}", "Lists that were shown, but are missing in the log.",
            "bad" if lost else "",
        ),
    ]  # fmt: skip


def build_store_cards(sums: SeriesSums) -> list[Card]:
    """Return the size of the store, how far its readers are behind, and the space on the disk."""
    cards = []
    for reader, words in READERS.items():
        behind, age = (sums.gauge(f"handsell_lag_{kind}", reader=reader) for kind in ("events", "seconds"))
        if behind is None:
            continue
        late = reader == "processor" and (age or 0) > LATE_S
        meaning = f"Events that “{words.lower()}” has not read yet; the oldest waits {_show_age(age)}."
        count = f"{behind:,.0f} {'event' if behind == 1 else 'events'}"
        cards.append(Card(f"{words}: behind", count, meaning, "warn" if late else ""))
    rows = sums.by("handsell_store_rows", "table")
    if rows:
        size = sums.gauge("handsell_store_bytes")
        tables = ", ".join(f"{count:,.0f} {table}" for table, count in sorted(rows.items()) if count)
        cards.append(Card("Event store", _show_bytes(size), f"Rows: {tables or 'none'}."))
    free, used = sums.gauge("handsell_disk_free_bytes"), sums.by("handsell_disk_bytes", "folder")
    if free is not None:
        largest = ", ".join(
            f"{folder} {_show_bytes(size)}" for folder, size in sorted(used.items(), key=lambda p: -p[1])[:3]
        )
        cards.append(
            Card("Free on the disk", _show_bytes(free), f"Largest folders: {largest}.", "bad" if free < 2**30 else "")
        )  # fmt: skip
    changes = sums.gauge("handsell_catalog_changes_age_seconds")
    if changes is not None:
        cards.append(
            Card("Catalog changes read", f"{_show_age(changes)} ago", "When the service last looked for changed items.")
        )
    return cards


def draw_stage_times(points: Sequence[Point]) -> list[Line]:
    """Return the time (ms) within which 95 of 100 calls of a stage are answered, over the last hours."""
    return [
        Line(
            words, [(time, _to_ms(sums.quantile("handsell_stage_seconds", 0.95, stage=name))) for time, sums in points]
        )
        for name, (words, _) in STAGES.items()
    ]


def draw_requests(points: Sequence[Point]) -> list[Line]:
    """Return lists per minute, and those without a part, over the last hours."""
    names = {"lists": "handsell_slates_total", "without a part": "handsell_degraded_slates_total"}
    return [
        Line(words, [(time, _count_per_minute(sums, name)) for time, sums in points]) for words, name in names.items()
    ]


def _count_per_minute(sums: SeriesSums, name: str) -> float | None:
    """Return a rate, None for a time that is too short to have one."""
    return 60 * sums.sum(name) / sums.seconds if sums.seconds and sums.seconds >= SHORTEST_S else None


def _quantile_of_lists(sums: SeriesSums, share: float) -> float | None:
    """Return a quantile of the time of lists over both routes that answer them, s."""
    histogram = "handsell_request_seconds"
    kept = {
        (name, labels): value for (name, labels), value in sums.grown.items()
        if name.startswith(histogram) and dict(labels).get("route") in LISTS
    }  # fmt: skip
    return SeriesSums(kept).quantile(histogram, share)


def _name_part(deployment: str) -> str:
    return (
        f"Searches part {deployment.removeprefix('Shard')} of the catalog"
        if deployment.startswith("Shard")
        else deployment
    )


def _to_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1_000 * seconds, 1)


def _show_ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1_000 * seconds:,.0f} ms"


def _show_age(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for limit, unit, word in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{seconds / unit:,.0f} {word}"
    return f"{seconds / 86_400:,.0f} days"


def _show_bytes(size: float | None) -> str:
    if size is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1_000 or unit == "TB":
            return f"{size:,.0f} {unit}" if unit in ("B", "kB") else f"{size:,.1f} {unit}"
        size /= 1_000
    raise AssertionError("unreachable")


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "–"
