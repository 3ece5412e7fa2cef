"""Recording and alert rules for Prometheus.

An objective's alerts compare how fast its budget of errors is used up over two windows: the long one shows that it
matters, the short one ends the alert soon after the cause (The Site Reliability Workbook, chapter 5).
"""

from __future__ import annotations

from typing import Any

from deployments.monitoring.objectives import STALE, Objective, Objectives, list_objectives

PAIRS = {  # severity → (share of the budget's rate, short window, long window)
    "page": ((14.4, "5m", "1h"), (6, "30m", "6h")),
    "ticket": ((3, "2h", "1d"), (1, "6h", "3d")),
}
WINDOWS = tuple(dict.fromkeys(window for pairs in PAIRS.values() for _, *both in pairs for window in both))
SPEED = {"page": "Fast", "ticket": "Slow"}

# name: (expression, for, severity, summary)
ALERTS = {
    "HandsellDown": (
        "absent(handsell_bundle_info)", "5m", "page",
        "No gateway answers Prometheus.",
    ),
    "HandsellReplicasMissing": (
        "min by (job, deployment) (ray_serve_deployment_status) < 6", "10m", "ticket",
        "A deployment has not had all replicas that Serve wants for ten minutes.",
    ),
    "HandsellProcessorBehind": (
        'max by (job) (handsell_lag_seconds{reader="processor"}) > 300', "5m", "page",
        "The stream processor is more than five minutes behind; users' rows and trending lists are old.",
    ),
    "HandsellCompactionBehind": (
        'max by (job) (handsell_lag_seconds{reader="compaction"}) > 172800', "1h", "ticket",
        "No compaction for two days. The nightly training fails; the event store grows.",
    ),
    "HandsellAppendsSlow": (
        'histogram_quantile(0.99, sum by (job, le) (rate(handsell_append_seconds_bucket{table="events"}[5m]))) > 1',
        "10m", "page",
        "One percent of the appends to the event store take more than a second.",
    ),
    "HandsellEventsRejected": (
        'sum by (job) (rate(handsell_events_total{outcome="rejected"}[15m]))'
        " / (sum by (job) (rate(handsell_events_total[15m])) > 0) > 0.1", "15m", "ticket",
        "More than a tenth of the events that clients send are rejected.",
    ),
    "HandsellImpressionsLost": (
        "sum by (job) (increase(handsell_impressions_lost_total[15m])) > 0", "", "ticket",
        "Served slates did not reach the event store; caps and training miss them.",
    ),
    "HandsellDiskFull": (
        "min by (job) (handsell_disk_free_bytes) < 2e9", "5m", "page",
        "Less than 2 GB are free on the disk of the state folder.",
    ),
    "HandsellNotMeasured": (
        "max by (job) (handsell_state_age_seconds) > 1800", "", "ticket",
        "Event store and disk were not measured for half an hour; the store does not answer.",
    ),
    "HandsellCatalogStale": (
        "max by (job) (handsell_catalog_changes_age_seconds) > 60", "5m", "page",
        "A gateway has not read catalog changes for a minute; deleted items may be shown.",
    ),
    "HandsellBundleRefused": (
        "max by (job, bundle) (handsell_bundle_refused) > 0", "10m", "ticket",
        "A gateway refuses the live bundle and serves the one before.",
    ),
    "HandsellBundleOld": (
        "min by (job) (handsell_bundle_age_seconds) > 259200", "1h", "ticket",
        "The served bundle is older than three days: no training succeeds, or none passes its gate.",
    ),
    "HandsellRulesRefused": (
        "max by (job, version) (handsell_rules_refused) > 0", "5m", "ticket",
        "A file of business rules is invalid; the earlier rules are applied.",
    ),
    "HandsellSlatesShort": (
        "sum by (job) (rate(handsell_short_slates_total[30m])) / (sum by (job) (rate(handsell_slates_total[30m])) > 0)"
        " > 0.05", "30m", "ticket",
        "More than five percent of the slates are shorter than requested.",
    ),
    "HandsellArmStopped": (
        "max by (job, experiment, arm) (handsell_experiment_stopped) > 0", "", "ticket",
        "An arm of an experiment is stopped, its users get control; `handsell experiments list` says why.",
    ),
}  # fmt: skip


def build_rules(said: Objectives) -> dict[str, Any]:
    """The content of rules.yaml, which is also the `spec` of a PrometheusRule."""
    objectives = list_objectives(said)
    lag = f'max by (job) (handsell_lag_seconds{{reader="processor"}}) > bool {said.freshness.limit_s:.0f}'
    shares = [{"record": STALE, "expr": lag}]
    shares += [{"record": o.record(w), "expr": o.share(w)} for o in objectives for w in WINDOWS]
    long = f"{said.window_days}d"
    budgets = [
        {"record": f"handsell:{o.name}:budget_left", "expr": f"1 - ({o.share(long)}) / {o.budget:g}"}
        for o in objectives
    ]
    alerts = [_build_burn_alert(o, severity, said) for o in objectives for severity in PAIRS]
    alerts += [_build_alert(name, *alert, said.runbooks) for name, alert in ALERTS.items()]
    return {
        "groups": [
            {"name": "handsell-objectives", "interval": "30s", "rules": shares},
            {"name": "handsell-budgets", "interval": "5m", "rules": budgets},  # a month of samples each
            {"name": "handsell-alerts", "interval": "30s", "rules": alerts},
        ]
    }


def _build_burn_alert(objective: Objective, severity: str, said: Objectives) -> dict[str, Any]:
    either = [
        " and ".join(f"{objective.record(window)} > {rate * objective.budget:g}" for window in (short, long))
        for rate, short, long in PAIRS[severity]
    ]
    return _build_alert(
        f"Handsell{objective.name.capitalize()}{SPEED[severity]}",
        " or ".join(f"({both})" for both in either), "", severity,
        f"The budget of errors of {objective.name} is used up too fast: {objective.target:.1%} of"
        f" {said.window_days} days is the objective.", said.runbooks,
    )  # fmt: skip


def _build_alert(name: str, expr: str, lasting: str, severity: str, summary: str, runbooks: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        **({"for": lasting} if lasting else {}),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "runbook_url": f"{runbooks}#{name.lower()}"},
    }
