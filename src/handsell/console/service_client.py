"""Requests of the console to the HTTP API, each with the key of the person who visits."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import httpx

from handsell.client.connection import describe_failure
from handsell.client.errors import NoAnswer, make_problem
from handsell.config import Config
from handsell.core.proxies import is_own_host

TIMEOUT_S = 10.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def find_service_url(config: Config) -> str:
    """Return where the console reaches the HTTP API."""
    host = ANY_ADDRESS.get(config.serving.host, config.serving.host)
    return (config.console.service_url or f"http://{host}:{config.serving.port}").rstrip("/")


class ServiceClient:
    """Asks the HTTP API; `transport` replaces the network in tests."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None):
        self.url = url
        is_own = is_own_host(urlsplit(url).hostname or "")
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=not is_own, transport=transport)

    async def ask(self, method: str, path: str, key: str = "", **parts: Any) -> Any:
        """Return the JSON of an answer, the text of one that is not JSON; `parts` are those of httpx: params, json.

        Raises ClientError: NoAnswer, or the ProblemError that the API answered with.
        """
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            response = await self._http.request(method, path, headers=headers, **parts)
        except httpx.RequestError as error:
            raise NoAnswer(describe_failure(f"{method} {path}", self.url, error)) from error
        if response.status_code >= 400:
            raise make_problem(f"{method} {path}", response.status_code, response.headers, response.text)
        is_json = "json" in response.headers.get("content-type", "")
        return response.json() if is_json and response.content else response.text

    async def close(self) -> None:
        await self._http.aclose()
