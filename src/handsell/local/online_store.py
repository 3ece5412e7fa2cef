"""Check that the online store of a deployment accepts connections and has rows."""

from __future__ import annotations

import socket
from pathlib import Path

import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout, has_content
from handsell.features.repository import STORE_VARIABLE, build_feast_settings

TIMEOUT_S = 5.0
VIEW = "user_activity"  # has a row for every user with events


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


def is_filled(config: Config) -> bool:
    """Return whether the online store has the row of a user who has one offline; a restarted Redis may be empty."""
    settings = build_feast_settings(config)["online_store"]
    if "path" in settings:
        return has_content(Path(settings["path"]))
    part = next(iter(sorted((Layout(config.state).features / VIEW).glob("*.parquet"))), None)
    ids = [] if part is None else pq.read_table(part, columns=["user_id"]).slice(0, 1)["user_id"].to_pylist()
    if not ids:
        return part is not None
    from handsell.features.store import open_store  # imports Feast, which takes seconds

    try:
        rows = open_store(config).online_users(ids)
    except Exception:  # any error of Feast or of the store's client: materialize reports it
        return False
    return any(values[0] is not None for values in rows.values())


def _try_to_connect(address: str) -> str | None:
    """Return why host:port does not accept a connection; None if it does."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError, UnicodeError) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}"
    return None
