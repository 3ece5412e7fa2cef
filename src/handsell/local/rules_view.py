"""`handsell rules check` and `handsell rules preview` as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from handsell.reranking.rules.live_rules import CompiledRules

CONSOLE_WIDTH = 120


def checked(edition: CompiledRules, now: int) -> Table:
    """The rules as they were understood: what each speaks of and whether it is in force at now µs."""
    ruleset = edition.ruleset
    table = Table(title=f"rules {ruleset.version}: {len(ruleset)}", title_justify="left")
    for name in ("rule", "kind", "asks", "items", "surfaces", "in force now"):
        table.add_column(name, justify="right" if name == "items" else "left")
    every = np.arange(len(ruleset.snapshot), dtype=np.int32)[None]
    surfaces = len(ruleset.scope.surface[0]) if len(ruleset) else 0
    here = ruleset.scope.active(np.full(surfaces, now), np.arange(surfaces), None)
    for r, rule in enumerate(ruleset.rules.rules):
        items = int(ruleset.matches(every, np.array([now]), [r]).sum())
        force = f"arm {rule.arm}" if rule.arm else "yes" if here[r].any() else "no"
        table.add_row(rule.name, rule.kind, rule.summary(), f"{items:,}", ", ".join(rule.surfaces) or "all", force)
    return table


def show(told: dict[str, Any]) -> None:
    """A summary of `local.rules` for people."""
    console = Console(width=CONSOLE_WIDTH)
    whose = "recorded requests" if told["recorded"] else "users of the catalog, as no request is recorded yet"
    console.print(f"{told['requests']} {whose}: rules {told['rules']['before']} → {told['rules']['after']}")
    for each in told["slates"]:
        console.print(_slates(each))
    console.print(_rules(told["by_rule"]))
    for title in ("items", "creators"):
        console.print(_moved(title, told[title]))
    score, shown = told["mean_score"], told["impressions"]
    relative = score["given_up"] / score["before"] if score["before"] else 0.0
    console.print(
        f"{told['changed_slates']} of {told['requests']} slates change. Mean score {score['before']:.4f} → "
        f"{score['after']:.4f}: {relative:.2%} given up. Impressions {shown['before']:,} → {shown['after']:,}."
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
    table = Table(title="share of impressions of each rule's items, where it is in force", title_justify="left")
    for name in ("rule", "kind", "requests", "before", "after", "could not hold"):
        table.add_column(name, justify="left" if name in ("rule", "kind") else "right")
    for row in rows:
        shares = (f"{row['before']:.2%}", f"{row['after']:.2%}")
        table.add_row(row["rule"], row["kind"], f"{row['requests']:,}", *shares, f"{row['could_not_hold']:,}")
    return table


def _moved(title: str, sides: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title=f"exposure by {title}: who gains, who loses", title_justify="left")
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
