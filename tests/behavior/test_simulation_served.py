"""`handsell simulate --url`: the population asks a running service, which logs what it shows and what they do."""

import json
import re

import pytest
from typer.testing import CliRunner

from gateway_server import run_gateway
from handsell.cli.app import app
from handsell.config import load_config
from handsell.events.store.opening import open_reader, open_writer
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import load_bundle
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.telemetry.observability import Metrics

pytestmark = pytest.mark.slow


def test_a_population_drives_the_running_service(deployment, tmp_path, monkeypatch):
    own = deployment.copy(tmp_path)
    source = str(own.config.source)
    with open_writer(own.config) as log:
        opened, metrics = open_bundle(source, "live"), Metrics()
        loaded = load_bundle(opened, load_local_stages(opened), own.store(), metrics)
        with run_gateway(Service(loaded, LocalSink(log), metrics)) as url:
            command = ["simulate", source, "--days", "3", "--users", "50", "--retrain-every", "0", "--url", url]
            done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    visits = [int(n) for n in re.findall(r"service: day \d of 3, (\d+) visits", done.output)]
    reader = open_reader(load_config(source))
    shown = reader.read_impressions(limit=10_000)
    events = reader.scan(limit=100_000)
    reader.close()
    assert len(visits) == 3 and min(visits) > 0 and len(set(shown["recommendation_id"])) == sum(visits)
    named = {name for name in events["recommendation_id"] if name is not None}
    assert named and named <= set(shown["recommendation_id"]), "what people do names the slate that they saw"
    (report,) = (load_config(source).state / "simulations").rglob("report.json")
    policies = json.loads(report.read_text())["policies"]
    assert set(policies) == {"service"} and 0 < policies["service"]["totals"]["satisfaction"] < 1
