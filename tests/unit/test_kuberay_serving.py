"""The RayService deploys the app as it is: same deployments and arguments, and every replica has a place."""

import pytest
import ray.dashboard.http_server_agent as agent
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from handsell.config import load_config
from handsell.console.deployment import ConsoleArgs
from handsell.core.paths import Layout
from handsell.serving.http.app import AppArgs, compose
from kuberay_manifests import FOLDER, KUBERAY, ROOT, find_values, load_clusters, load_environment, load_manifest
from serve_keys import find_unknown_keys

SERVE = yaml.safe_load(load_manifest("rayservice")["spec"]["serveConfigV2"])
APPLICATION, CONSOLE = SERVE["applications"]
DEPLOYMENTS = [*APPLICATION["deployments"], *CONSOLE["deployments"]]
GRAPH = yaml.safe_load((ROOT / "deployments" / "serve" / "graph.yaml").read_text())
GROUPS = {group["groupName"]: group for group in load_clusters()["rayservice"]["workerGroupSpecs"]}
SCALE = ("ray_actor_options", "autoscaling_config")  # what a larger machine may change


@pytest.fixture
def layout(monkeypatch) -> Layout:
    monkeypatch.setenv("HANDSELL_HOME", load_environment()["HANDSELL_HOME"])
    return Layout(load_config(FOLDER / "handsell.toml").state)


def offered() -> dict[str, dict]:
    """Group → what Ray's own autoscaler reads from the manifest: resources of a pod, fewest and most pods."""
    cluster = {"metadata": {"name": "handsell", "namespace": "handsell"}, "spec": load_clusters()["rayservice"]}
    return _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]


def asked(deployment: dict) -> dict[str, float]:
    options = deployment["ray_actor_options"]
    return {"CPU": options["num_cpus"], **options["resources"]}


def replicas(deployment: dict, bound: str) -> int:
    return deployment.get("autoscaling_config", {}).get(f"{bound}_replicas", deployment.get("num_replicas"))


def group_of(deployment: dict) -> str:
    """The one group whose pods offer what the deployment asks for beside CPUs."""
    (resource,) = deployment["ray_actor_options"]["resources"]
    (group,) = [name for name, node in offered().items() if resource in node["resources"]]
    return group


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_serve_config_is_one_that_serve_reads_without_ignoring_a_key():
    assert find_unknown_keys(SERVE) == []
    ServeDeploySchema.model_validate(SERVE)


def test_the_deployments_are_those_that_the_app_builds(monkeypatch):
    monkeypatch.setenv("HANDSELL_EVENT_STORE", "postgresql://handsell@localhost/handsell")  # it is not opened
    args = AppArgs.model_validate(APPLICATION["args"] | {"config": str(FOLDER / "handsell.toml"), "bundle": "any"})
    built = build_app(compose(args), name="handsell")
    assert sorted(d.name for d in built.deployments) == sorted(d["name"] for d in APPLICATION["deployments"])


def test_it_is_the_application_of_the_serve_file():
    local, console = GRAPH["applications"]
    here, there = ({k: v for k, v in app.items() if k not in ("args", "deployments")} for app in (APPLICATION, local))
    variables = there.pop("runtime_env")["env_vars"]  # here the containers have them: Ray's waiting processes do, too
    assert here == there and variables.items() <= load_environment().items()
    assert APPLICATION["args"] == local["args"] | {"config": "/etc/handsell/handsell.toml", "event_log": False}
    ours, theirs = (
        {d["name"]: {k: v for k, v in d.items() if k not in SCALE} for d in app["deployments"]}
        for app in (APPLICATION, local)
    )
    assert theirs["Gateway"].pop("max_surge_percent") == 100  # one machine has one gateway, a cluster several
    assert theirs.pop("EventLog") and ours == theirs  # every gateway writes to PostgreSQL itself
    apart = ("args", "deployments", "runtime_env")
    assert [CONSOLE[key] for key in CONSOLE if key not in apart] == [
        console[key] for key in CONSOLE if key not in apart
    ]
    (ours,), (theirs,) = CONSOLE["deployments"], console["deployments"]
    assert {**ours, "ray_actor_options": {"num_cpus": 0}} == theirs
    assert ConsoleArgs.model_validate(CONSOLE["args"]).config == APPLICATION["args"]["config"]


def test_the_config_is_the_mounted_one_and_the_worlds():
    for group in (load_clusters()["rayservice"]["headGroupSpec"], *GROUPS.values()):
        mounts = {m["name"]: m["mountPath"] for m in group["template"]["spec"]["containers"][0]["volumeMounts"]}
        assert APPLICATION["args"]["config"] == f"{mounts['config']}/handsell.toml"
        assert mounts["state"] == load_environment()["HANDSELL_HOME"]
    ours, world = load_config(FOLDER / "handsell.toml"), load_config(ROOT / "deployments" / "configs" / "world.toml")
    assert ours.jobs.wait_for_resources_s > world.jobs.wait_for_resources_s  # machines may have to come first
    assert ours.access.keys == "required"  # the service listens beyond loopback
    apart = {"jobs", "access"}
    assert ours.model_dump(exclude=apart) == world.model_dump(exclude=apart)
    small = load_config(KUBERAY / "overlays" / "local" / "handsell.toml")
    assert small.model_dump(exclude={"data"}) == ours.model_dump(exclude={"data"})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_replica_has_a_group_and_fits_into_its_pod(deployment):
    node = offered()[group_of(deployment)]
    assert all(node["resources"][name] >= amount for name, amount in asked(deployment).items())


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_holds_its_replicas_at_the_least_and_at_the_most(name):
    node = offered()[name]
    mine = [d for d in DEPLOYMENTS if group_of(d) == name]
    assert mine, f"nothing runs on {name}"
    custom = {resource for d in mine for resource in d["ray_actor_options"]["resources"]}
    assert custom == set(node["resources"]) - {"CPU", "memory"}
    for bound, pods in (("min", node["min_workers"]), ("max", node["max_workers"])):
        for resource in ("CPU", *sorted(custom)):
            needed = sum(asked(d).get(resource, 0) * replicas(d, bound) for d in mine)
            assert needed <= pods * node["resources"][resource], f"{resource} for {bound} replicas"
    request = GROUPS[name]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    cores = float(request.removesuffix("m")) / 1000 if request.endswith("m") else float(request)
    assert cores >= max(sum(asked(d)["CPU"] * replicas(d, "max") for d in mine) / node["max_workers"], 1)


def test_each_stage_has_a_group_of_its_own_and_a_pod_holds_one_replica():
    groups = {d["name"]: group_of(d) for d in DEPLOYMENTS}
    stages = ("Gateway", "Candidates", "Ranking", "Reranking")
    assert len({groups[name] for name in stages}) == 4
    assert all(offered()[groups[name]]["resources"][f"stage_{groups[name]}"] == 1 for name in stages)
    assert {groups[name] for name in ("StreamProcessor", "ExperimentGuard", "Console")} == {groups["Gateway"]}


def test_gateways_share_nothing_but_the_stores():
    """Two pods, and two clusters during an upgrade, write at the same time: no SQLite."""
    assert GROUPS["gateway"]["maxReplicas"] > GROUPS["gateway"]["minReplicas"] >= 2
    assert load_manifest("rayservice")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}
    for cluster in load_clusters().values():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            env = {one["name"]: one for one in group["template"]["spec"]["containers"][0]["env"]}
            stores = [env["HANDSELL_EVENT_STORE"], env["HANDSELL_ONLINE_STORE"]]
            assert not list(find_values(stores, "optional")) and not list(find_values(env, "value"))


def test_the_head_waits_for_the_pointer_to_the_live_bundle(layout):
    (waits,) = load_clusters()["rayservice"]["headGroupSpec"]["template"]["spec"]["initContainers"]
    assert str(layout.bundles / "live.json") in waits["command"][-1]


@pytest.mark.parametrize("name", load_clusters())
def test_the_head_runs_no_replica_and_no_task(name):
    assert load_clusters()[name]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert load_clusters()[name]["authOptions"] == {"mode": "token"}
    assert load_clusters()[name]["enableInTreeAutoscaling"] is True
    assert load_clusters()[name]["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("name", load_clusters())
def test_probes_ask_ports_that_answer_without_a_token(name):
    cluster, http = load_clusters()[name], SERVE["http_options"]["port"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        ready, alive = container["readinessProbe"], container["livenessProbe"]["httpGet"]
        assert alive["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT and alive["path"] in agent.PUBLIC_EXACT_PATHS
        if name == "rayservice" and group is not cluster["headGroupSpec"]:
            if "exec" in ready:  # a gateway: the proxy alone would be ready before it knows where to send requests
                assert group["groupName"] == "gateway"
                assert (
                    f"-/healthz healthz; do wget -q -T 2 -O /dev/null http://127.0.0.1:{http}/"
                    in ready["exec"]["command"][2]
                )
            else:
                assert (ports[ready["httpGet"]["port"]], ready["httpGet"]["path"]) == (http, "/-/healthz")
            assert (
                group["template"]["spec"]["terminationGracePeriodSeconds"] >= 60 and "preStop" in container["lifecycle"]
            )
        else:
            assert ready["httpGet"] == alive


def test_traffic_reaches_gateways_only_and_by_the_port_that_serve_listens_on():
    service, policy = load_manifest("service")["spec"], load_manifest("http-networkpolicy")["spec"]
    assert service["selector"] == policy["podSelector"]["matchLabels"]
    assert service["selector"]["ray.io/group"] == group_of(APPLICATION["deployments"][0])
    assert service["ports"][0]["targetPort"] == "serve"
    assert list(find_values(policy, "port")) == [SERVE["http_options"]["port"]]
