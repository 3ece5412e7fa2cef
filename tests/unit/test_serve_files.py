"""The Serve files say nothing that Serve would silently ignore, and name what the app really deploys."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from handsell.serving.http.app import AppArgs
from serve_keys import find_unknown_keys

FOLDER = Path(__file__).parents[2] / "deployments" / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))
DEPLOYMENTS = {
    "graph": {"Gateway", "Candidates", "Ranking", "Reranking", "EventLog", "StreamProcessor"},
    "fused": {"Gateway", "EventLog", "StreamProcessor"},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_key_is_one_that_serve_knows(path):
    document = yaml.safe_load(path.read_text())
    assert find_unknown_keys(document) == []
    ServeDeploySchema.model_validate(document)
    document["applications"][0]["deployments"][0]["autoscaling_config"]["min_replica"] = 1
    assert [k.split(".")[-1] for k in find_unknown_keys(document)] == ["min_replica"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_file_fits_the_app(path):
    (application,) = yaml.safe_load(path.read_text())["applications"]
    args = AppArgs.model_validate(application["args"])
    assert args.topology == path.stem
    assert {d["name"] for d in application["deployments"]} == DEPLOYMENTS[path.stem]
    for deployment in application["deployments"]:
        assert deployment["max_queued_requests"] > 0 and deployment["health_check_timeout_s"] <= 5
        writer = deployment["name"] in ("EventLog", "StreamProcessor")
        assert deployment.get("num_replicas") == (1 if writer else None)
        assert ("autoscaling_config" in deployment) != writer


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_listens_on_loopback_and_leaves_cpu_for_training(path):
    document = yaml.safe_load(path.read_text())
    assert document["http_options"]["host"] == "127.0.0.1"
    least = [
        d["ray_actor_options"]["num_cpus"] * d.get("autoscaling_config", {"min_replicas": 1})["min_replicas"]
        for d in document["applications"][0]["deployments"]
    ]
    assert sum(least) <= 1
