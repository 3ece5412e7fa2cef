"""The Serve files say nothing that Serve would silently ignore, and name what the app really deploys."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from handsell.serving.app import AppArgs

FOLDER = Path(__file__).parents[2] / "deployments" / "serve"
FILES = sorted(FOLDER.glob("*.yaml"))
PLAIN = ("args", "runtime_env", "user_config")  # any keys
DEPLOYMENTS = {
    "graph": {"Gateway", "Candidates", "Ranking", "Reranking", "EventLog"},
    "fused": {"Gateway", "EventLog"},
}


def models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in models_in(part)]


def unknown_keys(value, models, path="") -> list[str]:
    """Keys of a document that none of the pydantic models of that place has."""
    if isinstance(value, list):
        return [k for i, entry in enumerate(value) for k in unknown_keys(entry, models, f"{path}[{i}]")]
    if not isinstance(value, dict) or not models:
        return []
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    found = [f"{path}.{key}" for key in value if key not in fields]
    for key, inner in value.items():
        if key in fields and key not in PLAIN:
            found += unknown_keys(inner, models_in(fields[key].annotation), f"{path}.{key}")
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_key_is_one_that_serve_knows(path):
    document = yaml.safe_load(path.read_text())
    assert unknown_keys(document, [ServeDeploySchema]) == []
    ServeDeploySchema.model_validate(document)
    document["applications"][0]["deployments"][0]["autoscaling_config"]["min_replica"] = 1
    assert [k.split(".")[-1] for k in unknown_keys(document, [ServeDeploySchema])] == ["min_replica"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_file_fits_the_app(path):
    (application,) = yaml.safe_load(path.read_text())["applications"]
    args = AppArgs.model_validate(application["args"])
    assert args.topology == path.stem
    assert {d["name"] for d in application["deployments"]} == DEPLOYMENTS[path.stem]
    for deployment in application["deployments"]:
        assert deployment["max_queued_requests"] > 0 and deployment["health_check_timeout_s"] <= 5
        writer = deployment["name"] == "EventLog"
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
