"""Two gateways that require keys, with one event store in PostgreSQL, over HTTP: they follow what is changed."""

import time
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from gateway_server import run_gateway
from handsell.access.config import AccessConfig
from handsell.events.store.opening import STORE_VARIABLE, open_writer
from handsell.jobs import api_keys
from handsell.jobs.api_keys import KeyTerms
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.access.gate import OPEN_PATHS
from serving_service import build_service
from serving_world import write_world

pytestmark = pytest.mark.slow

ASK = "/v1/users/u1/recommendations?count=3"
PATIENCE_S = 30.0
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
LONGEST_QUERY = 32_000  # the HTTP server itself answers longer request lines with a bare 400


@pytest.fixture(scope="module")
def shop(tmp_path_factory, postgresql):
    """Config and base URLs of two gateways."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_VARIABLE, postgresql.create_database())
        world = write_world(tmp_path_factory.mktemp("shop"))
        config = world.config.model_copy(update={"access": AccessConfig(keys="required")})
        world = replace(world, config=config)
        one, two = (build_service(world, LocalSink(open_writer(config)), config=config) for _ in range(2))
        with run_gateway(one) as first, run_gateway(two) as second:
            yield SimpleNamespace(config=config, urls=(first, second))


def ask(url, text):
    return httpx.get(url + ASK, headers={"X-API-Key": text}, timeout=30)


def wait_for(shop, text, status):
    """Wait until both gateways answer a key with a status, and print the seconds that it took."""
    begun = time.monotonic()
    while [ask(url, text).status_code for url in shop.urls] != [status, status]:
        assert time.monotonic() < begun + PATIENCE_S, f"no {status} from both gateways"
        time.sleep(0.05)
    print(f"{status} from both gateways after {time.monotonic() - begun:.1f} s")


def test_a_key_is_created_rotated_and_revoked_while_the_gateways_run(shop):
    key, text = api_keys.create(shop.config, KeyTerms("web", "server", ("recommend",)))
    wait_for(shop, text, 200)
    _, newest = api_keys.rotate(shop.config, key.key_id, overlap_s=3_600)
    wait_for(shop, newest, 200)
    assert [ask(url, text).status_code for url in shop.urls] == [200, 200]  # the former secret, during the overlap
    assert [one.state for one in api_keys.list_keys(shop.config) if one.key.key_id == key.key_id] == ["rotating"]
    _, last = api_keys.rotate(shop.config, key.key_id, overlap_s=0)
    wait_for(shop, newest, 401)
    wait_for(shop, last, 200)
    api_keys.revoke(shop.config, key.key_id)
    wait_for(shop, last, 401)
    with pytest.raises(api_keys.ApiKeyError, match="revoked for good"):
        api_keys.rotate(shop.config, key.key_id, 0)


def test_a_quota_holds_for_both_gateways_together(shop):
    key, text = api_keys.create(shop.config, KeyTerms("small", "server", ("recommend",), quota_per_day=40))
    begun, answers = time.monotonic(), []
    while [one.status_code for one in answers[-2:]] != [429, 429]:
        answers += [ask(url, text) for url in shop.urls]
        assert time.monotonic() < begun + PATIENCE_S
        time.sleep(0.1)  # slower than the gateways tell each other
    used = sum(answer.status_code == 200 for answer in answers)
    assert 40 <= used <= 80 and answers[-1].json()["code"] == "quota_exceeded"
    until = time.monotonic() + PATIENCE_S
    while (found := {one.key.key_id: one.requests_today for one in api_keys.list_keys(shop.config)})[
        key.key_id
    ] != used:
        assert time.monotonic() < until, (found, used)
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (KeyTerms("", "server", ("recommend",)), "NAME: expected 1 to 80"),
        (KeyTerms("x", "server", ()), "--scope: expected at least one"),
        (KeyTerms("x", "widget", ("recommend", "admin")), "a widget's key may have recommend and events, got admin"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_in_words(shop, terms, message):
    with pytest.raises(api_keys.ApiKeyError, match=message):
        api_keys.create(shop.config, terms)


# -- generated requests -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def admin(shop):
    _, text = api_keys.create(shop.config, KeyTerms("tests", "server", ("admin",)))
    wait_for(shop, text, 200)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def operations(shop, admin):
    schema = schemathesis.openapi.from_url(f"{shop.urls[0]}/openapi.json", headers=admin)
    return [result.ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_no_generated_request_causes_a_server_error_or_passes_without_a_key(operations, admin, mode):
    for operation in operations:
        if mode == GenerationMode.NEGATIVE and operation.path in OPEN_PATHS:
            continue  # there is nothing to get wrong

        @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(mode))
        def send(case):
            assume(len(urlencode(case.query or {})) < LONGEST_QUERY)
            case.validate_response(case.call(timeout=30, headers=admin), checks=CHECKS)
            for headers in ({"Authorization": "Bearer hs_aaaaaaaaaa_x"}, {"Authorization": "", "X-API-Key": ""}):
                answer = case.call(timeout=30, headers=headers)
                assert (answer.status_code == 401) == (case.operation.path not in OPEN_PATHS), case.operation.path

        send()
