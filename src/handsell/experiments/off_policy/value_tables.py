"""Tables and sentences about a candidate's estimated value."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from handsell.experiments.off_policy.evaluation import ESTIMATORS, HEADLINE, REPRODUCED

NAMES = {
    "logged": "as shown",
    "ips": "inverse propensity",
    "self_normalized": "self-normalized",
    "doubly_robust": "doubly robust",
}
VERDICTS = {
    "better": "BETTER: the interval of the difference lies above 0",
    "worse": "WORSE: the interval of the difference lies below 0",
    "undecided": "UNDECIDED: the interval of the difference includes 0",
}


def print_value(value: dict[str, Any], console: Console) -> None:
    """Print what `describe_value` returned."""
    console.print(_build_positions(value))
    if value["slate"] is not None:
        console.print(_build_slate(value["slate"]))
    for line in list_sentences(value):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def list_sentences(value: dict[str, Any]) -> list[str]:
    """Return the remarks below the tables; the last one is the verdict."""
    log, share, clipping = value["log"], value["supported_share"], value["clipping"]
    lines = [
        f"{log['slates']:,} slates of {log['users']:,} users from {log['since']} to {log['until']}; a success is "
        f"{' or '.join(value['metrics']) or 'an event of positive weight'} that names the slate.",
        f"The log can speak about {_percent(share)} of the candidate's impressions, and is worth "
        f"{value['effective_impressions']:,.0f} of its {log['impressions']:,}.",
    ]
    if log["interleaved"]:
        lines.append(
            f"Left out: {log['interleaved']:.1%} of the slates since the candidate's data, which were interleaved from "
            "two arms and have no propensities of one policy."
        )
    if clipping["bound"] is not None:
        lines.append(
            f"Weights are clipped at {clipping['bound']:.1f}: {clipping['share']:.2%} of the impressions. The "
            f"doubly robust intervals include the largest bias, {clipping['largest_bias']:.4f} for a slate."
        )
    if log["reproduced"] is not None and log["reproduced"] < REPRODUCED:
        lines.append(
            f"The rebuilt requests show {log['reproduced']:.1%} of the logged impressions again: settings or rules "
            "have changed since, or requests had filters, sessions or pages. The candidate's slates are as uncertain."
        )
    if value["refusal"]:
        return [*lines, f"REFUSED for whole slates: {value['refusal']}."]
    found = value["slate"][HEADLINE]["difference"]
    verdict = VERDICTS[value["verdict"]]
    return [*lines, f"{verdict} ({NAMES[HEADLINE]}: {_interval(found, sign='+')} successes per slate)."]


def _build_positions(value: dict[str, Any]) -> Table:
    title = f"successes per impression on {value['surface']}: {value['candidate']}, bundle {value['bundle']}"
    table = Table(title=title, title_justify="left", caption="± half of the 95 % interval", caption_justify="left")
    for name in ("at", "supported", "worth", "as shown", "candidate", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in value["positions"]:
        cells = [str(one["position"]), f"{one['supported_share']['value']:.0%}"]
        cells.append(f"{one['effective_impressions']:,.0f}")
        found = one["estimates"]
        if found is None:
            table.add_row(*cells, "", "unknown", "")
            continue
        best, shown = found[HEADLINE], found["logged"]["value"]
        table.add_row(*cells, f"{shown:.4f}", _plus_minus(best), _plus_minus(best["difference"], sign="+"))
    return table


def _build_slate(found: dict[str, Any]) -> Table:
    table = Table(title="successes per slate", title_justify="left")
    for name in ("estimator", "value", "difference"):
        table.add_column(name, justify="left" if name == "estimator" else "right")
    table.add_row(NAMES["logged"], _plus_minus(found["logged"]), "")
    for name in ESTIMATORS:
        table.add_row(NAMES[name], _plus_minus(found[name]), _plus_minus(found[name]["difference"], sign="+"))
    return table


def _interval(found: dict[str, float], sign: str = "") -> str:
    value, low, high = (format(found[name], f"{sign}.4f") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _plus_minus(found: dict[str, float], sign: str = "") -> str:
    return f"{format(found['value'], f'{sign}.4f')} ± {(found['high'] - found['low']) / 2:.4f}"


def _percent(share: dict[str, float]) -> str:
    if share["high"] - share["low"] < 0.001:
        return f"{share['value']:.1%}"
    return f"{share['value']:.0%} ({share['low']:.0%} to {share['high']:.0%})"
