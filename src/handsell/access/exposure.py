"""A service that others can reach has keys, or somebody has said in words that anyone may call.

Without keys it listens on loopback, and browsers reach that, too: a web page whose name is made to resolve to
127.0.0.1 (DNS rebinding) counts as a page of the service's own origin. Only the header Host shows its name.
"""

from __future__ import annotations

import ipaddress

from handsell.access.config import AccessConfig

INGRESS_HOST = "HANDSELL_INGRESS_HOST"  # variable of a local cluster: the address of the HAProxy in front of it


def find_exposure(access: AccessConfig, host: str) -> str | None:
    """Return why a service must not listen on an address, None if it may."""
    if access.keys == "required" or access.open or is_loopback(host):
        return None
    return (
        f"serving.host: {host} can be reached from other machines, and access.keys is off, so that anyone may read and "
        'change everything: set access.keys = "required" and create a key with `handsell keys create`, listen on '
        '127.0.0.1, or say access.open = "anyone may call"'
    )


def refuse_host(access: AccessConfig, header: str) -> str | None:
    """Return why a request with this header Host is refused, None where it is not.

    Without keys, a name with a dot is refused: anyone may own one and let it resolve to 127.0.0.1.
    """
    if access.keys == "required" or access.open:
        return None
    name = header.removeprefix("[").partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    name = name.lower().rstrip(".")
    if "." not in name or name.endswith(".localhost") or _is_address(name):
        return None
    return (
        f"the header Host is expected to be localhost or an IP address while access.keys is off, got {header[:100]!r}: "
        'call http://127.0.0.1, or set access.keys = "required"'
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
