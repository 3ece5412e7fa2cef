"""Spans of requests, received by a real OTLP server: complete traces, nothing where there is no endpoint."""

import asyncio
import itertools
import socket

import pytest
from pydantic import ValidationError

from handsell.core.logs.request_trace import RequestTrace, get_traces, set_traces
from handsell.serving.graph.remote import pack_traces
from handsell.serving.telemetry import tracing
from handsell.serving.telemetry.config import TracingConfig
from otlp_receiver import otlp_receiver
from serving_service import FailingStages, start_service
from serving_world import write_world

CALLER = f"00-{'5' * 32}-{'7' * 16}-01"
STAGES = ["wait", "features", "candidates", "ranking", "reranking"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(autouse=True)
def fast_export(monkeypatch):
    for name in (*tracing.ENDPOINTS, tracing.SERVICE, "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield
    tracing.stop_tracing()
    set_traces(())


@pytest.fixture
def receiver():
    with otlp_receiver() as received:
        yield received


@pytest.fixture
def started(receiver):
    tracing.start_tracing(TracingConfig(endpoint=receiver.endpoint), "Gateway")
    return receiver


async def test_a_request_is_a_trace_with_a_span_for_each_stage(world, started):
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/users/u1/recommendations", headers={"traceparent": CALLER})
        await asyncio.sleep(0.3)  # the impression is stored after the answer
    spans = {span.name: span for span in started.wait_for(7, "5" * 32)}
    assert set(spans) == {"GET /v1/users/{user_id}/recommendations", *STAGES, "append slates"}
    request = spans["GET /v1/users/{user_id}/recommendations"]
    assert request.parent_id == "7" * 16 and request.service == "handsell-gateway" and not request.failed
    assert request.attributes["http.response.status_code"] == 200
    assert answer.headers["traceparent"] == f"00-{'5' * 32}-{request.span_id}-01"
    children = [spans[name] for name in (*STAGES, "append slates")]
    assert {span.parent_id for span in children} == {request.span_id}
    name = answer.json()["recommendation_id"]
    assert {span.attributes["handsell.recommendation_id"] for span in spans.values()} == {name}
    for earlier, later in itertools.pairwise(children):
        assert earlier.start_ns <= earlier.end_ns <= later.start_ns + 1_000_000
    assert request.start_ns <= children[0].start_ns and spans["reranking"].end_ns <= request.end_ns
    assert "u1" not in [value for span in spans.values() for value in span.attributes.values()]


async def test_every_request_of_a_batch_has_a_complete_trace(world, started):
    async with start_service(world) as (client, _):
        callers = [f"00-{n:032x}-{n:016x}-01" for n in range(1, 9)]
        await asyncio.gather(
            *(client.get(f"/v1/users/u{n}/recommendations", headers={"traceparent": c}) for n, c in enumerate(callers))
        )
    sizes = []
    for n in range(1, 9):
        spans = {span.name: span for span in started.wait_for(6, f"{n:032x}")}
        assert set(STAGES) < set(spans)
        sizes.append(spans["ranking"].attributes["handsell.requests"])
    assert max(sizes) > 1, "no two requests shared a batch"


async def test_events_have_a_span_of_their_append(world, started):
    async with start_service(world) as (client, _):
        event = {"type": "like", "user_id": "u1", "item_id": "i1"}
        answer = await client.post("/v1/events", json={"events": [event]}, headers={"traceparent": CALLER})
        assert answer.status_code == 202
    spans = {span.name: span for span in started.wait_for(2, "5" * 32)}
    assert spans["append events"].parent_id == spans["POST /v1/events"].span_id


async def test_a_failed_stage_is_a_failed_span_without_the_message(world, started):
    async with start_service(world, stages=FailingStages(world, "ranking")) as (client, _):
        await client.get("/v1/users/u1/recommendations", headers={"traceparent": CALLER})
    spans = {span.name: span for span in started.wait_for(6, "5" * 32)}
    assert spans["ranking"].failed and not spans["candidates"].failed


async def test_a_caller_that_does_not_sample_gets_no_spans_but_keeps_its_trace(world, started):
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/users/u1/recommendations", headers={"traceparent": CALLER[:-1] + "0"})
        await client.get("/v1/popular")
    assert answer.headers["traceparent"].startswith(f"00-{'5' * 32}-") and answer.headers["traceparent"].endswith("-00")
    (other,) = started.wait_for(1)
    assert other.name == "GET /v1/popular" and other.parent_id == ""


async def test_the_standard_variables_apply(world, receiver, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=abc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracing.start_tracing(TracingConfig(endpoint="http://127.0.0.1:1"), "Gateway")
    async with start_service(world) as (client, _):
        await client.get("/v1/trending")
        await client.get("/v1/popular", headers={"traceparent": CALLER})
    (span,) = receiver.wait_for(1)
    assert (span.service, span.name) == ("shop", "GET /v1/popular")
    assert receiver.headers[0]["x-token"] == "abc"


async def test_a_receiver_that_is_away_costs_no_request(world, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")  # seconds; the end of the process waits for it
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tracing.start_tracing(TracingConfig(endpoint=f"http://127.0.0.1:{port}"), "Gateway")
    async with start_service(world) as (client, _):
        answers = [await client.get("/v1/users/u1/recommendations") for _ in range(5)]
    assert all(answer.status_code == 200 and answer.json()["degraded"] == [] for answer in answers)


async def test_without_an_endpoint_there_are_no_spans(world, receiver):
    tracing.start_tracing(TracingConfig(), "Gateway")
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/users/u1/recommendations", headers={"traceparent": CALLER})
    assert answer.headers["traceparent"].startswith(f"00-{'5' * 32}-") and receiver.spans == []


def test_a_call_passes_on_the_span_that_makes_it(started):
    set_traces([RequestTrace("r1", "a" * 32, "b" * 16), RequestTrace("r2", "c" * 32, "")])
    with tracing.trace("ranking"):
        passed = pack_traces(get_traces())
        set_traces(RequestTrace(*each) for each in passed)  # the replica
        with tracing.trace("Ranking.rank"):
            pass
    assert get_traces() == (RequestTrace("r1", "a" * 32, "b" * 16), RequestTrace("r2", "c" * 32, ""))
    inner, outer = sorted(started.wait_for(2), key=lambda span: span.name)
    assert (inner.name, inner.parent_id) == ("Ranking.rank", outer.span_id) and outer.parent_id == "b" * 16
    assert passed[1] == ("r2", "c" * 32, "")


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "grpc://collector:4317", "http://me:secret@collector:4318", " "]
)
def test_an_endpoint_that_spans_cannot_be_sent_to_is_refused(endpoint):
    with pytest.raises(ValidationError, match="expected an address such as http://collector:4318"):
        TracingConfig(endpoint=endpoint)
