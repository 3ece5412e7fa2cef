"""Every metric that handsell exports, and those of Ray that its dashboards and alerts use."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from handsell.serving.slates.arm_traffic import ArmMetrics
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.slate_metrics import SlateMetrics
from handsell.serving.telemetry.state_metrics import StateMetrics

ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """A metric as its code declares it."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        return tuple(self.name + ending for ending in ENDINGS[self.kind])


def list_own_metrics() -> list[ExportedMetric]:
    """Metrics of `/metrics` of the API, in the order of their names. Each also has the label `replica`."""
    metrics = Metrics()
    for declare in (SlateMetrics, StateMetrics, ArmMetrics):
        declare(metrics.registry)
    return sorted(map(_describe, _list_collectors(metrics.registry)), key=lambda metric: metric.name)


def _list_collectors(registry: CollectorRegistry) -> list[MetricWrapperBase]:
    return [one for one in registry._collector_to_names if isinstance(one, MetricWrapperBase)]


def _describe(metric: MetricWrapperBase) -> ExportedMetric:
    # families without any series yet do not tell their labels through collect()
    return ExportedMetric(metric._name, str(metric._type), tuple(metric._labelnames), metric._documentation)


# Exported by each node of the Ray cluster (port 8080 of every pod), as Ray 2.60 names them
RAY_METRICS = (
    ExportedMetric(
        "ray_serve_deployment_replica_healthy", "gauge", ("application", "deployment"),
        "Replicas of a deployment that pass their health check",
    ),
    ExportedMetric(
        "ray_serve_deployment_status", "gauge", ("application", "deployment"),
        "6: healthy; 5, 4: removing, adding replicas; 3: updating; 2: unhealthy; 1: failed to deploy; 0: unknown",
    ),
    ExportedMetric(
        "ray_serve_replica_processing_queries", "gauge", ("application", "deployment", "replica"),
        "Calls in progress in a replica",
    ),
    ExportedMetric(
        "ray_serve_deployment_queued_queries", "gauge", ("application", "deployment", "handle"),
        "Calls that wait for a replica",
    ),
    ExportedMetric(
        "ray_node_cpu_utilization", "gauge", ("instance",), "Processor use of a node in percent",
    ),
    ExportedMetric("ray_node_cpu_count", "gauge", ("instance",), "Processors of a node"),
    ExportedMetric("ray_node_mem_used", "gauge", ("instance",), "Memory in use on a node, in bytes"),
    ExportedMetric("ray_node_mem_total", "gauge", ("instance",), "Memory of a node, in bytes"),
)  # fmt: skip


def list_series() -> set[str]:
    """Names of all series of the table."""
    return {series for metric in (*list_own_metrics(), *RAY_METRICS) for series in metric.series}
