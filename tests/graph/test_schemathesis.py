"""Schemathesis sends valid and invalid requests, generated from the OpenAPI document, to the running service."""

from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.strategies import booleans, randoms
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import serving_world

pytestmark = pytest.mark.slow

USERS = [f"u{i}" for i in range(serving_world.USERS)]
ITEMS = [f"i{i}" for i in range(serving_world.ITEMS)]
KNOWN = {"user_id": USERS, "item_id": ITEMS}
OWN = {"user_id": ["x1", "x2"], "item_id": ["x1", "x2"]}  # what these tests change: other tests ask for the rest
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CHANGES = (
    *(
        f"{method} /v1/{kind}s{place}"
        for kind in ("item", "user")
        for place in ("", f"/{{{kind}_id}}")
        for method in ("PUT", "PATCH", "GET", "DELETE")
    ),
    "POST /v1/identities/merge",
    "POST /v1/items",
    "POST /v1/users",
)
ASKED = (
    *CHANGES,
    "POST /v1/recommendations",
    "GET /v1/users/{user_id}/recommendations",
    "GET /v1/recommendations",
    "GET /v1/items/{item_id}/similar",
    "GET /v1/similar",
    "GET /v1/popular",
    "GET /v1/trending",
    "POST /v1/rank",
    "POST /v1/events",
    "POST /v1/ubi_events",
    "GET /v1/preview",
    "GET /v1/preview/explain",
    "GET /v1/explain",
    "GET /v1/onboarding",
    "POST /v1/onboarding",
    "PUT /v1/users/{user_id}/blocks",
    "GET /v1/users/{user_id}/blocks",
    "DELETE /v1/users/{user_id}/blocks",
    "PUT /v1/blocks",
    "GET /v1/blocks",
    "DELETE /v1/blocks",
)
LONGEST_QUERY = 32_000  # the HTTP server itself answers longer request lines with a bare 400
PLAIN = ("GET /healthz", "GET /readyz", "GET /metrics")  # there is nothing to get wrong
CASES = [(name, mode) for name in ASKED for mode in GenerationMode] + [(n, GenerationMode.POSITIVE) for n in PLAIN]


def with_known_ids(part, known, draw):
    """Replace generated ids by known ones."""
    if isinstance(part, list):
        return [with_known_ids(one, known, draw) for one in part]
    if not isinstance(part, dict):
        return part
    found = {name: with_known_ids(value, known, draw) for name, value in part.items()}
    found |= {
        name: draw.choice(known[name]) for name, value in part.items() if name in known and isinstance(value, str)
    }
    if isinstance(part.get("item_ids"), list):
        found["item_ids"] = draw.sample(ITEMS, 3)
    return found


@pytest.fixture(scope="module")
def operations(shop):
    schema = schemathesis.openapi.from_url(str(shop.base_url.join("/openapi.json")))
    found = [result.ok() for result in schema.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def test_every_operation_is_tested(operations):
    assert sorted(operations) == sorted((*ASKED, *PLAIN))


@pytest.mark.parametrize(("name", "mode"), CASES, ids=lambda part: getattr(part, "value", part))
def test_no_request_causes_a_server_error(operations, name, mode):
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operations[name].as_strategy(mode), known=booleans(), draw=randoms())
    def ask(case, known, draw):
        if known:  # random ids are strangers: users and items that exist get answers with something in them
            for part in ("body", "path_parameters", "query"):
                ids = OWN if name in CHANGES else KNOWN
                setattr(case, part, with_known_ids(getattr(case, part), ids, draw))
        assume(len(urlencode(case.query or {})) < LONGEST_QUERY)
        case.validate_response(case.call(timeout=30), checks=CHECKS)

    ask()
