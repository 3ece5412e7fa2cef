"""The nightly job against an API server that knows RayJobs."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kuberay_manifests import FOLDER, ROOT, load_manifest
from kubernetes_schemas import Schemas

OWNER = {"name": "handsell-nightly-29", "uid": "0b7e"}


@pytest.fixture(scope="module")
def nightly():
    spec = importlib.util.spec_from_file_location("nightly", FOLDER / "nightly.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Api(ThreadingHTTPServer):
    """Answers for the namespace `shop`; `states`: what a created RayJob is in, one per question; an int is a error."""

    def __init__(self, states=(), others=()):
        super().__init__(("127.0.0.1", 0), Handler)
        self.states, self.others, self.created, self.asked = list(states), list(others), [], []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        base, name = self.path.partition("?")[0].split("/rayjobs")
        assert base == "/apis/ray.io/v1/namespaces/shop"
        if not name:
            return self.answer(200, {"items": self.server.others})
        if name == "/handsell-train":
            return self.answer(200, load_manifest("train-rayjob") | {"status": {"jobDeploymentStatus": "Complete"}})
        assert name == "/handsell-train-x7"
        state = self.server.states.pop(0)
        self.answer(*((state, {}) if isinstance(state, int) else (200, {"metadata": {}, "status": state})))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.created.append(body)
        self.answer(201, body | {"metadata": body["metadata"] | {"name": "handsell-train-x7"}})

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def run(nightly, tmp_path):
    """Function from an Api to the exit status of the job against it."""
    (tmp_path / "token").write_text("secret\n")
    servers = []

    def against(api: Api) -> int:
        servers.append(api)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        jobs = nightly.RayJobs(f"http://127.0.0.1:{api.server_port}", "shop", tmp_path / "token")
        return nightly.train(jobs, OWNER, poll_s=0)

    yield against
    for server in servers:
        server.shutdown()
        server.server_close()


def ended(result: str) -> dict:
    return {"jobDeploymentStatus": "Complete" if result == "SUCCEEDED" else "Failed", "jobStatus": result}


def test_it_creates_a_copy_that_its_own_job_owns_and_waits_for_success(run):
    api = Api([{}, {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, 503, ended("SUCCEEDED")])
    assert run(api) == 0 and not api.states
    (made,) = api.created
    assert made["spec"] == load_manifest("train-rayjob")["spec"]
    assert made["metadata"]["generateName"] == "handsell-train-" and "name" not in made["metadata"]
    assert made["metadata"]["labels"] == load_manifest("train-rayjob")["metadata"]["labels"]
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "batch/v1", "kind": "Job", **OWNER}]
    assert {token for _, token in api.asked} == {"Bearer secret"}


def test_what_it_creates_is_a_valid_rayjob(run):
    folder = ROOT.parent / "shared" / "kuberay"
    if not folder.is_dir():
        pytest.skip(f"no Kubernetes schemas in {folder}")
    api = Api([ended("SUCCEEDED")])
    run(api)
    assert Schemas(folder).errors(api.created[0]) == []


@pytest.mark.parametrize("last", [ended("FAILED"), {"jobDeploymentStatus": "Failed"}, 404])
def test_a_training_that_fails_or_vanishes_fails_the_job(run, last):
    assert run(Api([last])) == 1


def test_a_second_training_is_not_started_beside_a_running_one(run, capsys):
    under_way = {"metadata": {"name": "handsell-train"}, "status": {"jobDeploymentStatus": "Running"}}
    done = {"metadata": {"name": "handsell-train-a1"}, "status": ended("SUCCEEDED")}
    api = Api(others=[done, under_way])
    assert run(api) == 1 and not api.created
    assert "handsell-train is still running" in capsys.readouterr().out


def test_the_role_allows_what_it_does_and_the_label_finds_trainings(nightly):
    (rule,) = load_manifest("nightly-role")["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["ray.io"], ["rayjobs"])
    assert sorted(rule["verbs"]) == ["create", "get", "list"]
    name, value = nightly.TRAINING.split("=")
    assert load_manifest("train-rayjob")["metadata"]["labels"][name] == value
    assert load_manifest("train-rayjob")["metadata"]["name"] == nightly.TEMPLATE
