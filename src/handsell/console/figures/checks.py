"""Checks that run as commands: of the source data, and of the feature values that were served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handsell.config import Config
from handsell.console.background_commands import CommandRun
from handsell.console.figures.live_lists import Card
from handsell.core.errors import ConfigError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.features.served_log import FEATURE_LOG, has_served_vectors

SKEW_REPORT = "skew.json"  # that `handsell skew` writes to the folder of logs
MOST_FEATURES = 20
MARKS = {"error": "bad", "warning": "warn", "note": "info"}


@dataclass(frozen=True, slots=True)
class CheckWords:
    """What a check is for, and the command that runs it."""

    title: str
    meaning: str
    command: str
    is_json: bool = False


CHECKS = {
    "data": CheckWords(
        "Source data",
        "Whether a training can use the events, items and people of the source: missing values, wrong times, unknown "
        "ids.",
        "doctor", True,
    ),
    "skew": CheckWords(
        "Served values",
        "Whether the values with which lists were made are those that a training would have computed for the same "
        "time.",
        "skew",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of a check; empty parts are left out of the page."""

    verdict: str = ""
    kind: str = "info"  # good, warn, bad, info
    as_of: float = 0.0  # s
    cards: tuple[Card, ...] = ()
    problems: tuple[tuple[str, str, str], ...] = ()  # kind, name with its count, message with examples
    advice: tuple[str, ...] = ()
    rows: tuple[tuple[str, str, str], ...] = ()  # feature, compared, share that differs


def find_check(name: str) -> str:
    """Return the name of a check; raises ConfigError for any other."""
    if name not in CHECKS:
        raise ConfigError(f"check: expected one of {', '.join(CHECKS)}, got {name[:40]!r}: choose it on the page")
    return name


def name_command(name: str, source: Path) -> tuple[str, ...]:
    check = CHECKS[name]
    return (check.command, str(source), *(["--json"] if check.is_json else []))


def explain_missing_input(config: Config, name: str) -> str:
    """Say why a check has nothing to look at yet; empty if it has."""
    if name != "skew" or has_served_vectors(Layout(config.state).logs / FEATURE_LOG):
        return ""
    share = config.serving.feature_log_share
    if not share:
        return "The service records no values: serving.feature_log_share is 0 in the configuration."
    return (
        f"The service records the values of {share:.2%} of its lists, and has recorded none so far. "
        "Lists of a bundle without a ranker have none."
    )


def describe_check(config: Config, name: str, run: CommandRun | None) -> CheckResult | None:
    """Return the last outcome, None if there is none; that of `handsell skew` outlives the console."""
    if name == "data":
        return None if run is None or run.value is None else describe_data(run.value, run.ended or 0.0)
    path = Layout(config.state).logs / SKEW_REPORT
    if not path.is_file():
        return None
    return describe_skew(read_json(path, "run the check again"), path.stat().st_mtime)


def describe_data(report: dict[str, Any], ended: float) -> CheckResult:
    """Put the JSON of `handsell doctor --json` in words."""
    problems = tuple(
        (
            MARKS[one["severity"]], one["name"] + (f" ({one['count']:,})" if one["count"] else ""),
            one["message"] + "".join(f" Such as {_show_row(example)}." for example in one["examples"][:1]),
        )
        for one in report["problems"]
    )  # fmt: skip
    cards = (
        Card("Events", f"{report['events']:,}", f"Of which {report['interactions']:,} are interactions."),
        Card("People", f"{report['users']:,}", f"The table of people has {report['described_users']:,}."),
        Card("Items", f"{report['items']:,}", f"The table of items has {report['described_items']:,}."),
        Card(
            "Days", f"{report['days']:,.0f}", f"From {(report['first'] or '–')[:10]} to {(report['last'] or '–')[:10]}."
        ),
    )
    if report["ok"]:
        warnings = sum(kind == "warn" for kind, _, _ in problems)
        said = "A training can use this data" + (f"; {warnings} warnings are below." if warnings else ".")
        return CheckResult(said, "warn" if warnings else "good", ended, cards, problems, tuple(report["advice"]))
    said = "A training cannot use this data: correct the errors below."
    return CheckResult(said, "bad", ended, cards, problems, tuple(report["advice"]))


def describe_skew(found: dict[str, Any], written: float) -> CheckResult:
    """Put the report of `handsell skew` in words."""
    differing = [one for one in found["features"] if one["differing"]]
    rows = tuple((one["feature"], f"{one['compared']:,}", f"{one['share']:.2%}") for one in differing[:MOST_FEATURES])
    times = [f"{datetime.fromtimestamp(found[key] / 1e6, UTC):%Y-%m-%d %H:%M}" for key in ("first_us", "last_us")]
    cards = (
        Card("Lists compared", f"{found['answers']:,}", f"Served from {times[0]} to {times[1]} UTC."),
        Card("Values compared", f"{len(found['features']):,}", f"Kinds of values, of {found['rows']:,} items shown."),
    )
    if differing:
        said = f"{len(differing)} of {len(found['features'])} kinds of values differ: lists are made from other values "
        return CheckResult(said + "than the model has learned from.", "bad", written, cards, rows=rows)
    return CheckResult("All values agree.", "good", written, cards)


def _show_row(example: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in example.items())
