"""Client of a handsell service: `Client`, and `AsyncClient` for programs with an event loop.

    with Client("http://127.0.0.1:8000", key="hs_…") as shop:
        slate = shop.recommend(user_id="u1", count=10, include=["metadata"])
        shop.track(type="click", user_id="u1", item_id=slate["items"][0]["item_id"],
                   recommendation_id=slate["recommendation_id"], position=1)

Answers are dictionaries as in docs/api.md, typed by `answers` and `bodies`. Errors: `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handsell.client.errors import ClientError, NoAnswer, ProblemError
from handsell.client.sync_client import Client

if TYPE_CHECKING:
    from handsell.client.async_client import AsyncClient

__all__ = ["AsyncClient", "Client", "ClientError", "NoAnswer", "ProblemError"]


def __getattr__(name: str) -> Any:
    """Import AsyncClient when it is used: asyncio takes longer than everything else here."""
    if name == "AsyncClient":
        from handsell.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
