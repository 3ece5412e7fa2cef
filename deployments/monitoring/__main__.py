"""Write rules.yaml, the PrometheusRule and the dashboards of this folder: `python -m deployments.monitoring`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from deployments.monitoring.dashboards import build_pages
from deployments.monitoring.objectives import read_objectives
from deployments.monitoring.rules import build_rules
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent
NOTE = "# Written by `python -m deployments.monitoring` from objectives.toml and rules.py.\n"


def render_files() -> dict[str, str]:
    """Path below this folder → content."""
    said = read_objectives()
    rules = build_rules(said)
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "handsell", "labels": {"app.kubernetes.io/part-of": "handsell"}},
        "spec": rules,
    }
    dashboards = {f"dashboards/{page.uid}.json": _dump_json(page.build()) for page in build_pages(said)}
    return {"rules.yaml": NOTE + _dump_yaml(rules), "prometheusrule.yaml": NOTE + _dump_yaml(manifest), **dashboards}


def _dump_yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=10_000, allow_unicode=True)


def _dump_json(value: Any) -> str:
    return json.dumps(value, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    for name, content in render_files().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
