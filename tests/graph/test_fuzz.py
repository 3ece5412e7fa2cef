"""Schemathesis reads the OpenAPI document and asks the running service what it allows, and what it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.cluster

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = (
    "POST /v1/recommendations",
    "GET /v1/users/{user_id}/recommendations",
    "GET /v1/items/{item_id}/similar",
    "GET /v1/popular",
    "GET /v1/trending",
    "POST /v1/rank",
    "POST /v1/events",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
)


@pytest.fixture(scope="module")
def operations(shop):
    schema = schemathesis.openapi.from_url(str(shop.base_url.join("/openapi.json")))
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def test_every_operation_is_asked(operations):
    assert sorted(operations) == sorted(OPERATIONS)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", OPERATIONS)
def test_no_question_breaks_it(operations, name, mode):
    operation = operations[name]
    if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
        pytest.skip("there is nothing to get wrong")

    @settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def ask(case):
        case.validate_response(case.call(timeout=30), checks=CHECKS)

    ask()
