"""Tables of `handsell rules check` and `handsell rules preview`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handsell.reranking.rules.description import describe_rules
from handsell.reranking.rules.live_rules import CompiledRules
from handsell.reranking.rules.publication import PublishedRules

CONSOLE_WIDTH = 120


def build_rules_table(compiled: CompiledRules, now: int) -> Table:
    """Return the effect, items and surfaces of each rule, and whether it is active at now µs."""
    ruleset = compiled.ruleset
    table = Table(title=f"rules {ruleset.version}: {len(ruleset)}", title_justify="left")
    for name in ("rule", "kind", "effect", "items", "surfaces", "active now"):
        table.add_column(name, justify="right" if name == "items" else "left")
    for one in describe_rules(ruleset, now):
        rule = one.rule
        state = f"arm {rule.arm}" if rule.arm else "yes" if one.is_in_time else "no"
        surfaces = ", ".join(rule.surfaces) or "all"
        table.add_row(rule.name, rule.kind, rule.summary(), f"{one.items:,}", surfaces, state)
    return table


def build_versions_table(versions: Sequence[PublishedRules], present: str) -> Table:
    """Return a table of publications, newest first; `present` is the version of the file."""
    table = Table(title=f"served: rules {present}", title_justify="left")
    for name in ("time (UTC)", "version", "rules", "by", "how", "note"):
        table.add_column(name, justify="right" if name == "rules" else "left")
    for one in versions:
        time = f"{datetime.fromtimestamp(one.time_us / 1e6, UTC):%Y-%m-%d %H:%M}"
        table.add_row(time, one.version, str(one.rules), escape(one.caller), one.action, escape(one.note))
    return table


def print_preview(summary: dict[str, Any]) -> None:
    """Print the result of `summarize_preview`."""
    console = Console(width=CONSOLE_WIDTH)
    kind = "recorded requests" if summary["recorded"] else "users of the catalog (no request is recorded yet)"
    console.print(f"{summary['requests']} {kind}: rules {summary['rules']['before']} → {summary['rules']['after']}")
    for each in summary["slates"]:
        console.print(_slates(each))
    console.print(_rules(summary["by_rule"]))
    for title in ("items", "creators"):
        console.print(_build_movement_table(title, summary[title]))
    score, shown = summary["mean_score"], summary["impressions"]
    relative = score["loss"] / score["before"] if score["before"] else 0.0
    console.print(
        f"{summary['changed_slates']} of {summary['requests']} slates change. Mean score {score['before']:.4f} → "
        f"{score['after']:.4f}: {relative:.2%} lower. Impressions {shown['before']:,} → {shown['after']:,}."
    )


def _slates(pair: dict[str, Any]) -> Table:
    table = Table(title=f"user {pair['user_id']}, surface {pair['surface']}", title_justify="left")
    for name in ("", "before", "score", "after", "score", "rules"):
        table.add_column(name, justify="right" if name in ("", "score") else "left")
    for at in range(max(len(pair["before"]), len(pair["after"]))):
        cells = [str(at + 1)]
        for side in (pair["before"], pair["after"]):
            entry = side[at] if at < len(side) else None
            cells += [f"{entry['item_id']} {entry['title']}", f"{entry['score']:.3f}"] if entry else ["", ""]
        rules = pair["after"][at]["rules"] if at < len(pair["after"]) else []
        table.add_row(*cells, ", ".join(rules))
    return table


def _rules(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="share of impressions of each rule's items, where the rule is active", title_justify="left")
    for name in ("rule", "kind", "requests", "before", "after", "could not hold"):
        table.add_column(name, justify="left" if name in ("rule", "kind") else "right")
    for row in rows:
        shares = (f"{row['before']:.2%}", f"{row['after']:.2%}")
        table.add_row(row["rule"], row["kind"], f"{row['requests']:,}", *shares, f"{row['could_not_hold']:,}")
    return table


def _build_movement_table(title: str, sides: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title=f"exposure by {title}: winners and losers", title_justify="left")
    for name in ("winner", "impressions", "loser", "impressions"):
        table.add_column(name, justify="right" if name == "impressions" else "left")
    winners, losers = sides["winners"], sides["losers"]
    for at in range(max(len(winners), len(losers))):
        cells: list[str] = []
        for side in (winners, losers):
            entry = side[at] if at < len(side) else None
            moved = f"{entry['before']} → {entry['after']} ({entry['change']:+d})" if entry else ""
            cells += [entry["id"] if entry else "", moved]
        table.add_row(*cells)
    return table
