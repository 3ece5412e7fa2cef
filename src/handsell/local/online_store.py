"""Check that the online store of a deployment accepts connections."""

from __future__ import annotations

import socket

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.features.repository import STORE_VARIABLE, build_feast_settings

TIMEOUT_S = 5.0


def require_online_store(config: Config) -> None:
    """Raise HandsellError, without the options of the connection, if no address of a Redis store accepts one."""
    connection = build_feast_settings(config)["online_store"].get("connection_string", "")
    addresses = [part.strip() for part in connection.split(",") if ":" in part and "=" not in part]
    causes = [cause for address in addresses if (cause := _try_to_connect(address))]
    if addresses and len(causes) == len(addresses):
        raise HandsellError(
            f"cannot reach the online store ({'; '.join(causes)}): start Redis there, or correct ${STORE_VARIABLE} or "
            "features.online_store"
        )


def _try_to_connect(address: str) -> str | None:
    """Return why host:port does not accept a connection; None if it does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError, UnicodeError) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}"
    return None
