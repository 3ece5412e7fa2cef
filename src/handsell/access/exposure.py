"""A service that others can reach has keys, or somebody has said in words that anyone may call."""

from __future__ import annotations

import ipaddress

from handsell.access.config import AccessConfig


def find_exposure(access: AccessConfig, host: str) -> str | None:
    """Return why a service must not listen on an address, None if it may."""
    if access.keys == "required" or access.open or is_loopback(host):
        return None
    return (
        f"serving.host: {host} can be reached from other machines, and access.keys is off, so that anyone may read and "
        'change everything: set access.keys = "required" and create a key with `handsell keys create`, listen on '
        '127.0.0.1, or say access.open = "anyone may call"'
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
