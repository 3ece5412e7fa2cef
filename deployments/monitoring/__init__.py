"""Prometheus rules and Grafana dashboards, generated from objectives.toml and the metrics that the code exports."""
