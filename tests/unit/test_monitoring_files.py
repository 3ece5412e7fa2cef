"""Dashboards, rules and the page of metrics are what the code says, and every name in them exists."""

import ast
import json
import os
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from deployments.monitoring.__main__ import FOLDER, render_files
from deployments.monitoring.objectives import FILE, read_objectives

from handsell.serving.telemetry.metric_table import RAY_METRICS, list_own_metrics, list_series
from handsell.serving.telemetry.observability import Metrics
from kuberay_manifests import FOLDER as BASE
from kuberay_manifests import build_text, find_values, load_clusters, load_manifest
from test_docs import load_generator, pages

ROOT = Path(__file__).parents[2]
SERIES = re.compile(r"\b(?:handsell|ray)[_:]\w+(?::\w+)*")
BY = re.compile(r"\bby \(([^)]*)\)")
MADE_BY_PROMETHEUS = {"job", "instance", "le", "alertname"}


@cache
def rules() -> list[dict]:
    return [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


@cache
def panel_queries() -> list[str]:
    pages = [json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))]
    return [target["expr"] for page in pages for panel in page["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("name", render_files())
def test_a_generated_file_is_current(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == render_files()[name], "run python -m deployments.monitoring"


def test_no_dashboard_is_left_over():
    assert {f"dashboards/{path.name}" for path in (FOLDER / "dashboards").iterdir()} <= set(render_files())


def test_the_page_of_metrics_is_what_the_code_declares():
    metrics = load_generator("make_metrics")
    assert metrics.PAGE.read_text(encoding="utf-8") == metrics.render_page(), "run python docs/make_metrics.py"


def test_the_table_has_every_metric_of_the_code():
    declared = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Counter", "Gauge", "Histogram", "Info"):
                declared |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and "handsell_" in a.value}
    assert len(declared) > 40 and declared == {metric.name for metric in list_own_metrics()}


def test_every_series_in_a_panel_or_a_rule_exists():
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    texts = [*panel_queries(), *(rule["expr"] for rule in rules())]
    named = {name for text in texts for name in SERIES.findall(text)}
    assert named and not named - recorded - list_series()


def test_every_label_that_groups_series_exists():
    labels = {series: metric.labels for metric in (*list_own_metrics(), *RAY_METRICS) for series in metric.series}
    for text in [*panel_queries(), *(rule["expr"] for rule in rules())]:
        there = {label for name in SERIES.findall(text) for label in labels.get(name, ())} | {"replica"}
        named = {label.strip() for group in BY.findall(text) for label in group.split(",")}
        assert named <= there | MADE_BY_PROMETHEUS, text


def test_every_series_in_the_documents_exists():
    known = list_series() | {metric.name for metric in list_own_metrics()}
    for page in (page for page in pages() if page.name != "CHANGELOG.md"):
        named = set(re.findall(r"`(handsell_\w+)(?:\{[^`]*)?`", page.read_text(encoding="utf-8"))) - {"handsell_shop"}
        assert named <= known, page.name


def test_every_alert_has_a_severity_and_a_run_book_that_exists():
    for rule in (rule for rule in rules() if "alert" in rule):
        assert rule["labels"]["severity"] in ("page", "ticket")
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, rule


def test_an_objective_that_cannot_be_measured_is_refused_in_words(tmp_path):
    path = tmp_path / "objectives.toml"
    path.write_text(FILE.read_text().replace("limit_s = 0.32", "limit_s = 0.3"))
    with pytest.raises(SystemExit, match=r"latency\.limit_s: .*expected a bound of the buckets.*got 0\.3"):
        read_objectives(path)


def test_a_replica_is_named_in_every_series():
    metrics = Metrics("abc")
    metrics.requests.labels("/v1/rank", 200).inc()
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    assert lines and all('replica="abc"' in line for line in lines)
    assert 'handsell_requests_total{replica="abc",route="/v1/rank",status="200"} 1.0' in lines
    assert "replica=" not in Metrics().render().decode()


def test_the_component_names_every_file_and_every_dashboard():
    component = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    (made,) = component["configMapGenerator"]
    assert sorted(made["files"]) == sorted(name for name in render_files() if name.endswith(".json"))
    assert sorted(component["resources"]) == ["podmonitor.yaml", "prometheusrule.yaml"]


def test_what_prometheus_scrapes_are_ports_of_the_pods():
    ports = {port["name"]: port["containerPort"] for found in find_values(load_clusters(), "ports") for port in found}
    monitors = list(yaml.safe_load_all((FOLDER / "podmonitor.yaml").read_text()))
    scraped = [endpoint["port"] for monitor in monitors for endpoint in monitor["spec"]["podMetricsEndpoints"]]
    assert {port: ports[port] for port in scraped} == {"serve": 8000, "metrics": 8080}
    labels = monitors[0]["spec"]["selector"]["matchLabels"]
    assert labels == load_manifest("http-networkpolicy")["spec"]["podSelector"]["matchLabels"]


def test_kustomize_builds_an_overlay_with_the_component(tmp_path):
    base, component = (os.path.relpath(folder, tmp_path.resolve()) for folder in (BASE, FOLDER))
    overlay = {"namespace": "handsell", "resources": [base], "components": [component]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = build_text(tmp_path)
    objects = list(yaml.safe_load_all(built))
    kinds = [found["kind"] for found in objects]
    assert kinds.count("PodMonitor") == 2 and kinds.count("PrometheusRule") == 1
    assert {found["metadata"].get("namespace") for found in objects if found["kind"] != "Namespace"} == {"handsell"}
