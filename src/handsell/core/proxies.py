"""Exemption of this machine's own addresses from the HTTP proxies of the environment."""

from __future__ import annotations

import os

NAMES = ("NO_PROXY", "no_proxy")  # programs read one or the other
OWN_HOSTS = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


def is_own_host(host: str) -> bool:
    return host in OWN_HOSTS or host.startswith("127.")


def bypass_proxies() -> dict[str, str]:
    """Return NO_PROXY in both spellings: the caller's entries and this machine's own addresses.

    Ray's commands, jobs and replicas call each other on loopback, which a proxy cannot reach.
    """
    given = ",".join(os.environ.get(name, "") for name in NAMES)
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    value = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *OWN_HOSTS]))  # programs accept only a lone *
    return dict.fromkeys(NAMES, value)
