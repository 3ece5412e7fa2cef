"""The configuration of HAProxy: one back end per route prefix, with places for the replicas that answer there.

Places are filled and emptied at run time (see supervisor.py), so that no change of replicas needs a reload. HAProxy's
own check finds replicas that have ended, or say that they are stopping. It is patient with slow ones: Serve replaces
those that hang, and to refuse everything would not help an overloaded gateway.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

Address = tuple[str, int]  # IP and port of a replica
Routes = Mapping[str, Iterable[Address]]  # route prefix → the replicas that answer there

PLACES = 32  # per back end
EMPTY: Address = ("127.0.0.1", 9)  # of a place without a replica, which is in maintenance
SERVER_TIMEOUT_S = 40  # above request_timeout_s of the Serve files: the replica answers first

GLOBAL = """\
global
    stats socket {socket} mode 600 level admin
    stats timeout 30s
    nbthread 1
    maxconn 4096
    no strict-limits
    hard-stop-after 60s
    close-spread-time 2s

defaults
    mode http
    timeout connect 2s
    timeout client 75s
    timeout http-request 15s
    timeout server {server_timeout}s
    timeout check 20s
    option http-no-delay
    option abortonclose
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response
    balance leastconn
{errors}
"""
FRONTEND = """\
frontend service
    bind fd@{listener}
    # a request whose replica ended before it answered is sent to another one, if answering it twice does no harm
    http-request disable-l7-retry unless {{ method GET HEAD }} or {{ path /v1/recommendations /v1/rank }}
"""
BACKEND = """\
backend {name}
    option httpchk GET /-/healthz
    http-check expect status 200
    default-server check inter 1s fastinter 250ms downinter 250ms fall 2 rise 1
    default-server observe layer4 error-limit 1 on-error mark-down
    # the first replica that answers nothing at the moment, or else the one that answers the fewest requests
{preferences}
"""
UNAVAILABLE = "no gateway can answer at the moment; retry after the given number of seconds"
PROBLEMS = {
    400: ("Malformed request", "malformed_request", "this is not a valid HTTP request, or its headers are too long"),
    408: ("Request timeout", "request_timeout", "the request was not complete within 15 seconds"),
    502: ("Unavailable", "gateway_lost", "the gateway ended before it answered; send the request again"),
    503: ("Unavailable", "no_gateway", UNAVAILABLE),
    504: ("Unavailable", "gateway_timeout", f"the gateway did not answer within {SERVER_TIMEOUT_S} seconds"),
}


def render_config(listener: int, socket: str, routes: Routes) -> str:
    """Return the configuration for an inherited listening socket, the path of the run-time socket, and the replicas."""
    prefixes = sorted(routes, key=len, reverse=True)
    parts = [
        GLOBAL.format(socket=socket, server_timeout=SERVER_TIMEOUT_S, errors="\n".join(map(_describe_error, PROBLEMS))),
        FRONTEND.format(listener=listener),
    ]
    for prefix in prefixes:
        match = f" if {{ path {prefix} }} or {{ path_beg {prefix}/ }}" if prefix != "/" else ""
        parts.append(f"    use_backend {name_backend(prefix)}{match}\n")
    for prefix in prefixes:
        name = name_backend(prefix)
        parts += ["\n", BACKEND.format(name=name, preferences=_prefer_idle(name)), *_list_places(routes[prefix])]
    return "".join(parts)


def name_backend(prefix: str) -> str:
    """Return the name of the back end of a route prefix."""
    return re.sub(r"\W", "_", prefix.strip("/")) or "gateway"


def name_place(number: int) -> str:
    return f"replica{number}"


def _prefer_idle(backend: str) -> str:
    """Return the rules by which requests one after another go to one replica, whose processor caches stay warm.

    A place without a replica is passed over.
    """
    places = (name_place(number) for number in range(PLACES))
    return "\n".join(f"    use-server {place} if {{ srv_conn({backend}/{place}) eq 0 }}" for place in places)


def _list_places(addresses: Iterable[Address]) -> Iterable[str]:
    taken = list(addresses)[:PLACES]
    for number in range(PLACES):
        ip, port = taken[number] if number < len(taken) else EMPTY
        yield f"    server {name_place(number)} {ip}:{port}{'' if number < len(taken) else ' disabled'}\n"


def _describe_error(status: int) -> str:
    """Return the directive that answers an error of HAProxy's own in the form of the API's errors."""
    title, code, detail = PROBLEMS[status]
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code})
    retry = " hdr retry-after 1" if status >= 502 else ""
    return f"    http-error status {status} content-type application/problem+json string '{body}'{retry}"
