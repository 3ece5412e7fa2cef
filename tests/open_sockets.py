"""Check that no socket of a cluster beyond loopback runs code of unauthorized clients.

The check is a real attack: a call of Serve's gRPC method with a pickle that creates a folder when it is unpickled.
"""

from __future__ import annotations

import ipaddress
import os
import pickle
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from ray.serve.generated.serve_pb2 import ASGIRequest

METHOD = "/ray.serve.ASGIService/HandleRequest"
REFUSED, RAN = "refused", "ran the code"
REFUSALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass(frozen=True, order=True)
class Listener:
    """One listening socket and the process that holds it."""

    ip: str
    port: int
    pid: int
    name: str

    @property
    def on_loopback(self) -> bool:
        return ipaddress.ip_address(self.ip.removeprefix("::ffff:")).is_loopback


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def list_listeners(root: psutil.Process) -> list[Listener]:
    """List the listening TCP sockets, IPv4 and IPv6, of a process and its descendants."""
    found = []
    for process in [root, *root.children(recursive=True)]:
        try:
            sockets, name = process.net_connections("inet"), " ".join(process.cmdline()[:2])
        except psutil.NoSuchProcess:
            continue
        found += [Listener(s.laddr.ip, s.laddr.port, process.pid, name) for s in sockets if s.status == "LISTEN"]
    return sorted(found)


@dataclass(frozen=True)
class Intrusion:
    """Object that creates a folder in the process that unpickles it."""

    folder: Path

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def attack(port: int, token: str | None, timeout_s: float = 5.0) -> str:
    """Send an Intrusion, with or without a token; return REFUSED, RAN or the name of the gRPC status."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with tempfile.TemporaryDirectory() as name, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        folder = Path(name) / "made"
        method = channel.unary_unary(METHOD, request_serializer=ASGIRequest.SerializeToString)
        status = grpc.StatusCode.OK
        try:
            method(ASGIRequest(pickled_request_metadata=pickle.dumps(Intrusion(folder))), timeout_s, metadata)
        except grpc.RpcError as error:
            status = error.code()
        if folder.exists():
            return RAN
    return REFUSED if status in REFUSALS else status.name


def find_open_sockets(listeners: Iterable[Listener], token: str) -> list[str]:
    """Describe each socket beyond loopback that is not a replica's server protected by this token.

    The call with the token must run the code: this shows that only the token refused the others.
    """
    wrong = []
    for listener in listeners:
        if listener.on_loopback:
            continue
        for how, shown, expected in (
            ("without a token", None, REFUSED),
            ("with another token", "0" * len(token), REFUSED),
            ("with the token", token, RAN),
        ):
            got = attack(listener.port, shown)
            if got != expected:
                wrong.append(f"{listener} {how}: expected {expected}, got {got}")
    return wrong
