"""A load generator for a pod: closed loops over HTTP with the standard library alone; prints one line of JSON.

    python load.py --url http://handsell.handsell --seconds 60 --connections 8 --users 1000 [--events 0.2]

Reads the API key from $API_KEY. The name is looked up once, as by clients with a cache: the cluster's DNS is not
tested. A connection is opened again after every 50 requests, as load balancers do, and after an error. A request that
could not be sent since the server had closed the connection after the answer before is sent again on a new one, as
clients do, and counted in `resent`. `--events`: share of requests that post an event; those that were acknowledged are
listed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import threading
import time
import uuid
from urllib.parse import urlsplit

PER_CONNECTION = 50


class Client(threading.Thread):
    """One closed loop until a deadline; `answers` are (seconds since the start, seconds taken, status, degraded)."""

    def __init__(self, options: argparse.Namespace, begun: float, seed: int):
        super().__init__(daemon=True)
        self.options, self.begun, self.random = options, begun, random.Random(seed)
        self.address = options.address
        self.headers = {"Content-Type": "application/json", "Host": urlsplit(options.url).netloc}
        if key := os.environ.get("API_KEY"):
            self.headers["Authorization"] = f"Bearer {key}"
        self.answers: list[tuple[float, float, int, bool]] = []
        self.errors: list[tuple[float, str]] = []
        self.refusals: list[tuple[float, int, str]] = []
        self.acknowledged: list[str] = []
        self.resent = 0

    def run(self) -> None:
        connection, used = None, 0
        while (now := time.monotonic()) < self.begun + self.options.seconds:
            if connection is None or used == PER_CONNECTION:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection(*self.address, timeout=10)
                used = 0
            try:
                self.ask(connection, now)
                used += 1
            except (OSError, http.client.HTTPException) as error:
                self.errors.append((round(now - self.begun, 3), f"{type(error).__name__}: {error}"))
                connection.close()
                connection = None
                time.sleep(0.05)
        if connection is not None:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection, now: float) -> None:
        user, event = f"u{self.random.randrange(self.options.users):07d}", None
        if self.random.random() < self.options.events:
            event = uuid.UUID(int=self.random.getrandbits(128)).hex + os.environ.get("HOSTNAME", "")[-6:]
            item = f"t{self.random.randrange(self.options.users):07d}"
            one = {"event_id": event, "type": "like", "user_id": user, "item_id": item}
            path, body = "/v1/events", json.dumps({"events": [one]})
        else:
            path, body = "/v1/recommendations", json.dumps({"user_id": user, "count": 10})
        self.send(connection, path, body)
        response = connection.getresponse()
        text = response.read()
        took = time.monotonic() - now
        if response.status >= 300:
            self.refusals.append((round(now - self.begun, 3), response.status, text.decode(errors="replace")[:120]))
        if event is not None and response.status == 202:
            self.acknowledged.append(event)
        degraded = response.status == 200 and bool(json.loads(text).get("degraded"))
        self.answers.append((now - self.begun, took, response.status, degraded))

    def send(self, connection: http.client.HTTPConnection, path: str, body: str) -> None:
        is_open = connection.sock is not None
        try:
            connection.request("POST", path, body, self.headers)
        except (BrokenPipeError, ConnectionResetError):
            if not is_open:
                raise
            connection.close()
            self.resent += 1
            connection.request("POST", path, body, self.headers)


def look_up(host: str, port: int) -> tuple[str, int]:
    """Return the first address of a name; tried for ten seconds."""
    for _ in range(20):
        try:
            return socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        except socket.gaierror:
            time.sleep(0.5)
    raise SystemExit(f"{host} has no address: check the cluster's DNS")


def summarize(clients: list[Client]) -> dict:
    answers = sorted(answer for client in clients for answer in client.answers)
    errors = sorted(error for client in clients for error in client.errors)
    times = sorted(took for _, took, status, _ in answers if status < 300)
    refused = sorted(refusal for client in clients for refusal in client.refusals)
    seconds = int(max((at for at, *_ in answers), default=0)) + 1
    per_second = [0] * seconds
    for at, _, status, _ in answers:
        per_second[int(at)] += status < 300
    return {
        "sent": len(answers) + len(errors),
        "ok": len(times),
        "degraded": sum(degraded for *_, degraded in answers),
        "refused": refused[:50],
        "refused_count": len(refused),
        "errors": errors[:50],
        "errors_count": len(errors),
        "resent": sum(client.resent for client in clients),
        "p50_ms": round(1e3 * times[len(times) // 2], 1) if times else None,
        "p99_ms": round(1e3 * times[int(len(times) * 0.99)], 1) if times else None,
        "per_second": per_second,
        "acknowledged": [event for client in clients for event in client.acknowledged],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--events", type=float, default=0.0)
    options = parser.parse_args()
    options.address = look_up(urlsplit(options.url).hostname, urlsplit(options.url).port or 80)
    seed, begun = random.SystemRandom().randrange(1 << 60), time.monotonic()
    clients = [Client(options, begun, seed + place) for place in range(options.connections)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(json.dumps(summarize(clients)))


if __name__ == "__main__":
    main()
