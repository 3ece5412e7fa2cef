"""The dashboards: overview, stages and replicas, events, quality and experiments."""

from __future__ import annotations

from deployments.monitoring.objectives import LISTS, Objectives, list_objectives
from deployments.monitoring.panels import Page, Panel, Query, highest, mean, percentiles, quantile, rate, select

FIRING = 'ALERTS{alertname=~"Handsell.*",alertstate="firing"}'


def build_pages(said: Objectives) -> tuple[Page, ...]:
    return build_overview(said), STAGES, EVENTS, QUALITY


def build_overview(said: Objectives) -> Page:
    objectives = list_objectives(said)
    budgets = tuple(
        Panel(
            f"{o.name.capitalize()}: budget left", "percentunit",
            f"{o.target:.1%}: {o.meaning}. What is left of the budget of errors of {said.window_days} days.",
            (Query(select(f"handsell:{o.name}:budget_left"), "{{job}}"),), is_number=True,
        )
        for o in objectives
    )  # fmt: skip
    shares = tuple(Query(select(o.record("1h")), o.name) for o in objectives)
    return Page("handsell-overview", "handsell: overview", {
        "Objectives": budgets,
        "Answers": (
            Panel("Requests by status", "reqps", "Requests to the HTTP API.",
                  (Query(rate("handsell_requests_total", by="status"), "{{status}}"),)),
            Panel("Time of a list", "s", "From the request's arrival at a gateway to the end of the response.",
                  percentiles("handsell_request_seconds", LISTS)),
            Panel("Share that is bad, over one hour", "percentunit", "By objective.", shares),
            Panel("Degraded, by cause", "ops", "Answers without a part that failed or was late.",
                  (Query(rate("handsell_degraded_total", by="cause"), "{{cause}}"),)),
        ),
        "Service": (
            Panel("Lists by surface", "ops", "Slates answered.",
                  (Query(rate("handsell_slates_total", by="surface"), "{{surface}}"),)),
            Panel("Bundles served", "none", "Gateways seen with each bundle in the last two minutes.",
                  (Query(f"count by (bundle) ({_seen('handsell_bundle_info')})", "{{bundle}}"),)),
            Panel("Age of the bundle and of its data", "s", "The nightly training renews both.", (
                Query(highest("handsell_bundle_age_seconds"), "bundle"),
                Query(highest("handsell_snapshot_age_seconds"), "newest event of the item snapshot"),
            )),
            Panel("Alerts", "none", "Alerts of handsell that fire.",
                  (Query(f"count by (alertname) ({FIRING})", "{{alertname}}"),)),
        ),
    })  # fmt: skip


def _seen(gauge: str) -> str:
    return f"last_over_time({select(gauge)}[2m])"


STAGES = Page("handsell-stages", "handsell: stages and replicas", {
    "Stages, as a gateway sees them": (
        Panel("Time of a batch, p50", "s", "features: the users' rows.",
              (Query(quantile(0.5, "handsell_stage_seconds", by="stage"), "{{stage}}"),)),
        Panel("Time of a batch, p99", "s", "A stage later than its share of the deadline is left out.",
              (Query(quantile(0.99, "handsell_stage_seconds", by="stage"), "{{stage}}"),)),
        Panel("Requests in a batch, mean", "none", "Batches grow with the load, up to serving.micro_batch.",
              (Query(mean("handsell_batch_size"), "requests"),)),
        Panel("Requests that wait for a batch", "none", "By gateway, the highest of two minutes.",
              (Query(highest("handsell_waiting_requests", by="replica"), "{{replica}}"),)),
    ),
    "Replicas (Ray Serve)": (
        Panel("Healthy replicas", "none", "By deployment.",
              (Query("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"),)),
        Panel("State of deployments", "none", "6: healthy; 5, 4, 3: changing; 2, 1: unhealthy.",
              (Query("min by (deployment) (ray_serve_deployment_status)", "{{deployment}}"),)),
        Panel("Calls in progress", "none", "By deployment; autoscaling follows their mean by replica.",
              (Query("sum by (deployment) (ray_serve_replica_processing_queries)", "{{deployment}}"),)),
        Panel("Calls that wait for a replica", "none", "By deployment.",
              (Query("sum by (deployment) (ray_serve_deployment_queued_queries)", "{{deployment}}"),)),
    ),
    "Nodes (Ray)": (
        Panel("Processor use", "percent", "Of each node or pod.", (Query("ray_node_cpu_utilization", "{{instance}}"),)),
        Panel("Processors", "none", "Of all nodes.", (Query("sum(ray_node_cpu_count)", "processors"),)),
        Panel("Memory in use", "percentunit", "Of each node or pod.",
              (Query("ray_node_mem_used / ray_node_mem_total", "{{instance}}"),)),
    ),
})  # fmt: skip

EVENTS = Page("handsell-events", "handsell: event store and stream processor", {
    "Events": (
        Panel("Events by outcome", "ops", "accepted, duplicates (sent before), rejected (invalid).",
              (Query(rate("handsell_events_total", by="outcome"), "{{outcome}}"),)),
        Panel("Time of an append, p99", "s", "From the hand-over to the event store until the commit.",
              (Query(quantile(0.99, "handsell_append_seconds", by="table"), "{{table}}"),)),
        Panel("Waiting for their commit", "none", "All gateways that have told it within two minutes.", (
            Query(highest("handsell_waiting_events"), "events"), Query(highest("handsell_waiting_slates"), "slates"),
        )),
        Panel("Lost impressions, unknown items", "ops", "Slates that did not reach the store.", (
            Query(rate("handsell_impressions_lost_total"), "slates lost"),
            Query(rate("handsell_events_unknown_items_total"), "events of unknown items"),
        )),
    ),
    "Readers of the store": (
        Panel("Age of the oldest unread event", "s", "processor: the users' rows. compaction: the nightly training.",
              (Query(highest("handsell_lag_seconds", by="reader"), "{{reader}}"),)),
        Panel("Unread events", "none", "At most.", (Query(highest("handsell_lag_events", by="reader"), "{{reader}}"),)),
        Panel("Age of what gateways have read", "s", "Catalog changes; size and lag of the store.", (
            Query(highest("handsell_catalog_changes_age_seconds"), "catalog changes"),
            Query(highest("handsell_state_age_seconds"), "size and lag"),
        )),
        Panel("Time since the user's last event, p50", "s", "Of the users who ask.",
              (Query(quantile(0.5, "handsell_user_features_age_seconds"), "p50"),)),
    ),
    "Size": (
        Panel("Event store", "bytes", "Without what it keeps for rows to come.",
              (Query(highest("handsell_store_bytes"), "store"),)),
        Panel("Rows of the event store", "none", "By table.",
              (Query(highest("handsell_store_rows", by="table"), "{{table}}"),)),
        Panel("Disk use of the state folder", "bytes", "By folder.",
              (Query(highest("handsell_disk_bytes", by="folder"), "{{folder}}"),)),
        Panel("Free disk space", "bytes", "An alert below 2 GB.",
              (Query(highest("handsell_disk_free_bytes"), "free"),)),
    ),
})  # fmt: skip

QUALITY = Page("handsell-quality", "handsell: quality and experiments", {
    "Slates": (
        Panel("Diversity, mean", "none", "1 - mean cosine of the tags within a slate.",
              (Query(mean("handsell_slate_diversity", by="surface"), "{{surface}}"),)),
        Panel("Novelty, mean bits", "none", "Self-information of a slate's items.",
              (Query(mean("handsell_slate_novelty_bits", by="surface"), "{{surface}}"),)),
        Panel("Repeated items, mean share", "percentunit", "Items that the user was shown in the slate before.",
              (Query(mean("handsell_slate_repeat_rate", by="surface"), "{{surface}}"),)),
        Panel("Exposure of the catalog", "none", "Over the last 5,000 slates of a gateway.", (
            Query(highest("handsell_exposure_gini"), "Gini coefficient"),
            Query(highest("handsell_exposure_coverage"), "share of items shown"),
        )),
    ),
    "What slates are made of": (
        Panel("Candidates by source", "ops", "Items found by each retriever.",
              (Query(rate("handsell_candidates_total", by="source"), "{{source}}"),)),
        Panel("Cold starts, short, explored", "ops", "Slates for new users; shorter ones; random items.", (
            Query(rate("handsell_cold_starts_total"), "cold starts"),
            Query(rate("handsell_short_slates_total"), "short slates"),
            Query(rate("handsell_explored_items_total"), "explored items"),
        )),
        Panel("Relaxed constraints", "ops", "Rules of the slate that could not all hold.",
              (Query(rate("handsell_relaxed_total", by="constraint"), "{{constraint}}"),)),
        Panel("Items removed, by filter", "ops", "Catalog items that a filter removes from requests.",
              (Query(rate("handsell_items_removed_total", by="filter"), "{{filter}}"),)),
    ),
    "Experiments": (
        Panel("Requests by arm", "reqps", "In each experiment.",
              (Query(rate("handsell_experiment_requests_total", by="experiment, arm"), "{{experiment}} {{arm}}"),)),
        Panel("Failed or degraded, by arm", "ops", "In each experiment.", (
            Query(rate("handsell_experiment_errors_total", by="experiment, arm"), "{{experiment}} {{arm}} failed"),
            Query(rate("handsell_experiment_degraded_total", by="experiment, arm"), "{{experiment}} {{arm}} degraded"),
        )),
        Panel("Time of an answer by arm, p95", "s", "In each experiment.",
              (Query(quantile(0.95, "handsell_experiment_seconds", by="experiment, arm"), "{{experiment}} {{arm}}"),)),
        Panel("Canary, stopped arms", "none", "Share of users of the candidate bundle; 1 for a stopped arm.", (
            Query(highest("handsell_canary", by="bundle, state"), "{{bundle}} {{state}}"),
            Query(highest("handsell_experiment_stopped", by="experiment, arm"), "{{experiment}} {{arm}} stopped"),
        )),
    ),
    "Rules and catalog": (
        Panel("Quotas of business rules", "percentunit", "Share of the day's impressions so far.",
              (Query(highest("handsell_rules_share", by="rule"), "{{rule}}"),)),
        Panel("Items since the bundle", "none", "Items that came after it.",
              (Query(highest("handsell_catalog_new_items"), "items"),)),
        Panel("Answers from the bundle before", "ops", "While gateways change to a new one.",
              (Query(rate("handsell_previous_bundle_answers_total"), "answers"),)),
    ),
})  # fmt: skip
