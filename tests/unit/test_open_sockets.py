"""The checker of a cluster's sockets can fail: it tells an open server from one that wants the token."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from handsell.core.ray_token import read_token
from open_sockets import RAN, REFUSED, Listener, attack, find_open_sockets, list_listeners

SERVER = """
import pickle, time
from ray._private.grpc_utils import create_grpc_server_with_interceptors
from ray.serve.generated.serve_pb2 import ASGIRequest, ASGIResponse
from ray.serve.generated.serve_pb2_grpc import ASGIServiceServicer, add_ASGIServiceServicer_to_server

class Replica(ASGIServiceServicer):
    def HandleRequest(self, request, context):
        pickle.loads(request.pickled_request_metadata)
        return ASGIResponse()

server = create_grpc_server_with_interceptors(max_workers=2)
add_ASGIServiceServicer_to_server(Replica(), server)
port = server.add_insecure_port("[::]:0")
server.start()
print(port, flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["token", "disabled"])
def replica(request):
    """(mode, process) of a server like a replica's, made by the function that makes the replicas'."""
    program = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_AUTH_MODE": request.param},
    )  # fmt: skip
    assert int(program.stdout.readline())
    yield request.param, psutil.Process(program.pid)
    program.kill()
    program.wait()
    program.stdout.close()


@pytest.fixture
def token():
    """That of the tests' own clusters."""
    return read_token(Path(os.environ["RAY_AUTH_TOKEN_PATH"]))


def test_a_server_with_the_token_passes_and_one_without_is_reported(replica, token):
    mode, process = replica
    (listener,) = list_listeners(process)
    assert not listener.on_loopback
    wrong = find_open_sockets([listener], token)
    if mode == "token":
        assert wrong == []
    else:
        assert [line.rpartition(": ")[2] for line in wrong] == [f"expected {REFUSED}, got {RAN}"] * 2
        assert f"port={listener.port}" in wrong[0] and "without a token" in wrong[0]


def test_what_speaks_no_grpc_is_reported():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        assert port in [listener.port for listener in list_listeners(psutil.Process())]
        assert attack(port, None, timeout_s=1.0) not in (REFUSED, RAN)


@pytest.mark.parametrize(
    ("ip", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::", False),
        ("0.0.0.0", False),
        ("10.0.0.7", False),
    ],
)
def test_which_addresses_are_loopback(ip, loopback):
    assert Listener(ip, 1, 1, "").on_loopback == loopback
    if loopback:
        assert find_open_sockets([Listener(ip, 1, 1, "")], "x") == []
