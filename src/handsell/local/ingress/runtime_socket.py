"""HAProxy's run-time socket: which process answers, which replicas it has, and changes of them.

Only the standard library is imported: the supervisor shall need little memory.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from handsell.local.ingress.haproxy_config import Address

TIMEOUT_S = 10.0
IN_MAINTENANCE = 1  # bit of a server's state; another one, 4, says for ever that its first state was maintenance


@dataclass(frozen=True)
class ReplicaPlace:
    """A server of a back end: empty (in maintenance), or with the address of a replica."""

    name: str
    address: Address
    is_empty: bool
    is_up: bool


def ask(path: str, command: str) -> str | None:
    """Send a command; return the answer, or None if no HAProxy listens at the path."""
    answer = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(f"{command}\n".encode())
        while part := connection.recv(65_536):
            answer.append(part)
        return b"".join(answer).decode(errors="replace")
    return None


def find_pid(path: str) -> int | None:
    """Return the process that answers at the path."""
    for line in (ask(path, "show info") or "").splitlines():
        name, _, value = line.partition(": ")
        if name == "Pid" and value.isdecimal():
            return int(value)
    return None


def list_places(path: str, backend: str) -> list[ReplicaPlace]:
    """Return the places of a back end; none if HAProxy does not answer or has no such back end."""
    lines = (ask(path, f"show servers state {backend}") or "").splitlines()
    names = next((line[2:].split() for line in lines if line.startswith("# ")), [])
    rows = [dict(zip(names, line.split(), strict=False)) for line in lines if line.count(" ") > 10 and line[0] != "#"]
    return [
        ReplicaPlace(
            row["srv_name"], (row["srv_addr"], int(row["srv_port"])),
            bool(int(row["srv_admin_state"]) & IN_MAINTENANCE), row["srv_op_state"] == "2",
        )
        for row in rows
    ]  # fmt: skip


def assign(path: str, backend: str, wanted: Iterable[Address]) -> bool:
    """Give each wanted replica a place and empty the others; return whether HAProxy sends requests to some replica.

    A replica that is not wanted any more finishes its requests and gets no others. Where none is wanted, as while Serve
    takes in a deployment, those that pass HAProxy's health check go on.
    """
    places, wanted = list_places(path, backend), set(wanted)
    taken = [place for place in places if not place.is_empty]
    if not wanted:
        wanted = {place.address for place in taken if place.is_up}
    commands = [f"set server {backend}/{place.name} state maint" for place in taken if place.address not in wanted]
    missing = sorted(wanted - {place.address for place in taken})
    free = [place for place in places if place.is_empty]
    for place, address in zip(free, missing, strict=False):
        commands += _fill(backend, place.name, address)
    if commands:
        ask(path, "; ".join(commands))
    return any(place.is_up and place.address in wanted for place in taken)


def _fill(backend: str, place: str, address: Address) -> Iterator[str]:
    ip, port = address
    yield f"set server {backend}/{place} addr {ip} port {port}"
    yield f"set server {backend}/{place} state ready"
