"""Two gateways on a cluster, under load: a broken canary is rolled back on both, a good one is promoted."""

import httpx
import pytest

import serving_world
from canary_visitors import CANARY_PORT, check_broken_canary, check_good_canary
from conftest import wait_until_ready
from serving_world import open_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(ray_cluster, canary_world):
    """Base URL of an application with two gateways."""
    from ray import cloudpickle, serve

    from handsell.serving.graph.deployments import STAGE_DEPLOYMENTS, EventLogDeployment
    from handsell.serving.graph.gateway import Gateway
    from handsell.serving.guard_rails.deployment import ExperimentGuardDeployment
    from handsell.serving.http.app import bind

    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(http_options={"host": "127.0.0.1", "port": CANARY_PORT})
    source = str(canary_world.config.source)
    log = bind(EventLogDeployment, source)
    stages = {stage: bind(deployment, source, "live") for stage, deployment in STAGE_DEPLOYMENTS.items()}
    guard = bind(ExperimentGuardDeployment, source)
    gateways = Gateway.options(num_replicas=2)
    serve.run(bind(gateways, source, "live", log, stages, open_rows, None, guard), name="canary", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{CANARY_PORT}", timeout=60) as client:
        wait_until_ready(client)
    yield f"http://127.0.0.1:{CANARY_PORT}"
    serve.delete("canary")
    serve.shutdown()


def test_a_broken_canary_is_rolled_back_under_load(canary_world, url, canary_states):
    check_broken_canary(canary_world, [url], canary_states)


def test_a_good_canary_is_promoted_under_load(canary_world, url, canary_states):
    check_good_canary(canary_world, [url], canary_states)
