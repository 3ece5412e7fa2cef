"""Address, key and time limits of a client, and how it opens httpx, which is imported with the first call."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from handsell.client.errors import ClientError
from handsell.core.proxies import is_own_host

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "HANDSELL_API_KEY"


@dataclass(frozen=True, slots=True)
class Connection:
    """`timeout_s` is for a whole call with its `retries`; `transport` replaces the network, or adds a proxy to it."""

    url: str
    key: str | None
    timeout_s: float
    retries: int
    transport: Any = None

    def open(self) -> httpx.Client:
        return import_httpx().Client(**self._list_settings())

    def open_async(self) -> httpx.AsyncClient:
        return import_httpx().AsyncClient(**self._list_settings())

    def _list_settings(self) -> dict[str, Any]:
        """Return the settings of httpx; calls to this machine ignore the proxies of the environment."""
        is_own = is_own_host(urlsplit(self.url).hostname or "")
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"base_url": self.url, "headers": headers, "trust_env": not is_own, "transport": self.transport}


def connect(url: str, key: str | None, timeout_s: float, retries: int, transport: Any) -> Connection:
    """Return a connection, which opens nothing yet; raises ClientError for an invalid address, key or limit."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ClientError(f"url: expected an address such as http://127.0.0.1:8000, got {url!r}")
    key = os.environ.get(KEY_VARIABLE) if key is None else key
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ClientError("key: expected one line of ASCII without spaces: `handsell keys create` prints it")
    if not timeout_s > 0 or retries < 0:
        raise ClientError(f"expected timeout_s > 0 and retries >= 0, got {timeout_s} and {retries}")
    return Connection(url.rstrip("/"), key, timeout_s, retries, transport)


def import_httpx() -> ModuleType:
    """Import httpx, which takes longer than everything else here."""
    return importlib.import_module("httpx")


def describe_failure(place: str, url: str, error: Exception) -> str:
    """Say that a call had no answer, and what to check."""
    what = str(error) or type(error).__name__
    return f"{place}: expected an answer from {url}, got none: {what}: check the address, and that the service runs"
