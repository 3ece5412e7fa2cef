"""NetworkPolicies: only what a policy opens can be reached; needs a network plug-in that enforces them."""

from __future__ import annotations

import pytest

from kube_cluster import LOAD_NAMESPACE, list_pods, list_ready, run_in_pod, run_kubectl

pytestmark = pytest.mark.slow
TRY = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close(); print('open')"


def reach(host: str, port: int) -> bool:
    """Whether a pod of another namespace reaches a port."""
    command = ("python3", "-c", TRY, host, str(port))
    return "open" in run_kubectl("-n", LOAD_NAMESPACE, "exec", "load", "--", *command, check=False)


@pytest.fixture(scope="module")
def addresses(key) -> dict[str, str]:
    pods = list_pods("app.kubernetes.io/part-of in (handsell,handsell-stores)")
    found = {}
    for pod in pods:
        if pod["status"]["phase"] != "Running":  # jobs leave pods behind
            continue
        labels = pod["metadata"]["labels"]
        is_head = labels.get("ray.io/node-type") == "head"
        name = "head" if is_head else labels.get("ray.io/group") or labels["app.kubernetes.io/name"]
        found[name] = pod["status"]["podIP"]
    if reach(found["redis"], 6379):
        pytest.skip("this cluster's network plug-in does not enforce NetworkPolicies")
    return found


@pytest.mark.parametrize(
    "name, port",
    [("postgresql", 5432), ("redis", 6379), ("head", 6379), ("head", 8265), ("head", 10001), ("candidates", 8000)],
)
def test_a_stranger_reaches_neither_stores_nor_rays_ports(addresses, name, port):
    assert not reach(addresses[name], port)


def test_a_stranger_reaches_the_api(addresses):
    assert reach("handsell.handsell", 80) and reach(addresses["gateway"], 8000)


@pytest.mark.parametrize("group", ["candidates", "ranking", "reranking"])
def test_a_stranger_reaches_no_port_of_a_stage(addresses, group):
    """Neither Ray's ports nor the socket of the replica, whose ports are chosen at their start."""
    script = (
        "lines = [line.split() for name in ('tcp', 'tcp6') for line in open('/proc/net/' + name)][1:]\n"
        "print(*sorted({int(line[1].rpartition(':')[2], 16) for line in lines if line[3] == '0A'}))"
    )
    pod = list_ready(group)[0]
    ports = [int(port) for port in run_in_pod(pod, "python3", "-c", script, container="ray-worker").split()]
    assert len(ports) > 5 and [port for port in ports if reach(addresses[group], port)] == []
