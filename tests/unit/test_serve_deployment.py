"""A Serve file is sent to the cluster with its token; an answer that refuses it is the error."""

from types import SimpleNamespace

import httpx
import pytest

from handsell.core.errors import HandsellError
from handsell.local import service

HEAD = SimpleNamespace(dashboard="http://127.0.0.1:8265", headers={"Authorization": "Bearer t"})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_text("applications: [{name: handsell}]\n")
    return path


def test_the_file_is_sent_with_the_token(file, monkeypatch):
    calls = []
    monkeypatch.setattr(httpx, "put", lambda *sent, **options: calls.append((sent, options)) or httpx.Response(200))
    service.send_serve_file(file, HEAD)
    ((address,), options) = calls[0]
    assert address == "http://127.0.0.1:8265/api/serve/applications/"
    assert options["json"] == {"applications": [{"name": "handsell"}]} and options["headers"] == HEAD.headers
    assert options["trust_env"] is False


def test_a_refusal_and_a_lost_connection_are_errors_that_name_the_file(file, monkeypatch):
    monkeypatch.setattr(httpx, "put", lambda *_, **__: httpx.Response(400, text="unknown deployment Gatway"))
    with pytest.raises(HandsellError, match=r"graph\.yaml: .* answers 400:\nunknown deployment Gatway"):
        service.send_serve_file(file, HEAD)

    def fail(*_, **__):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "put", fail)
    with pytest.raises(HandsellError, match=r"graph\.yaml: http://127\.0\.0\.1:8265 does not answer .*refused"):
        service.send_serve_file(file, HEAD)
