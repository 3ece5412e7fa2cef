"""Operations of the HTTP API as methods; written by clients/make_models.py from the OpenAPI document."""

from __future__ import annotations

from typing import Any, Unpack

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.calls import ApiCall


class AsyncEndpoints:
    async def _send(self, call: ApiCall) -> Any:
        """Make a call and return its answer; raises ClientError."""
        raise NotImplementedError

    async def recommend(self, **body: Unpack[b.RecommendationsBody]) -> a.RecommendationsAnswer:
        """Recommend items to a user on a surface."""
        return await self._send(ApiCall("POST", "/v1/recommendations", body=body))

    async def similar(self, **query: Unpack[b.SimilarParameters]) -> a.RecommendationsAnswer:
        """List items similar to one."""
        return await self._send(ApiCall("GET", "/v1/similar", query=query))

    async def popular(self, **query: Unpack[b.PopularParameters]) -> a.ListAnswer:
        """List the most popular items."""
        return await self._send(ApiCall("GET", "/v1/popular", query=query))

    async def trending(self, **query: Unpack[b.TrendingParameters]) -> a.ListAnswer:
        """List items that are liked more this week than before."""
        return await self._send(ApiCall("GET", "/v1/trending", query=query))

    async def rank(self, **body: Unpack[b.RankBody]) -> a.RankAnswer:
        """Rank the caller's own items for a user."""
        return await self._send(ApiCall("POST", "/v1/rank", body=body))

    async def explain(self, **query: Unpack[b.ExplainParameters]) -> a.ExplainAnswer:
        """Explain why an item is or is not in the user's slate, stage by stage."""
        return await self._send(ApiCall("GET", "/v1/explain", query=query))

    async def onboarding(self, **body: Unpack[b.OnboardingBody]) -> a.OnboardingAnswer:
        """List the items whose answers teach most about a new user."""
        return await self._send(ApiCall("POST", "/v1/onboarding", body=body))

    async def preview(self, **query: Unpack[b.PreviewParameters]) -> a.PreviewAnswer:
        """Show a slate with another bundle, arm or setting, or after imagined events; nothing is logged as shown."""
        return await self._send(ApiCall("GET", "/v1/preview", query=query))

    async def explain_preview(self, **query: Unpack[b.ExplainPreviewParameters]) -> a.ExplainAnswer:
        """Explain why an item is or is not in a previewed slate, stage by stage."""
        return await self._send(ApiCall("GET", "/v1/preview/explain", query=query))

    async def put_item(self, item_id: str, fields: b.ItemBody) -> a.ItemAnswer:
        """Add or replace an item."""
        return await self._send(ApiCall("PUT", "/v1/items", query={"item_id": item_id}, body=fields))

    async def patch_item(self, item_id: str, fields: b.ItemBody) -> a.ItemAnswer:
        """Change some fields of an item."""
        return await self._send(ApiCall("PATCH", "/v1/items", query={"item_id": item_id}, body=fields))

    async def get_item(self, item_id: str) -> a.ItemAnswer:
        """Show the current state of an item."""
        return await self._send(ApiCall("GET", "/v1/items", query={"item_id": item_id}))

    async def delete_item(self, item_id: str) -> None:
        """Delete an item."""
        return await self._send(ApiCall("DELETE", "/v1/items", query={"item_id": item_id}))

    async def put_items(self, **body: Unpack[b.ItemsBody]) -> a.RowsAnswer:
        """Put up to 1,000 items; answered when they are durable."""
        return await self._send(ApiCall("POST", "/v1/items", body=body))

    async def put_user(self, user_id: str, fields: b.UserBody) -> a.UserAnswer:
        """Add or replace the attributes of a user."""
        return await self._send(ApiCall("PUT", "/v1/users", query={"user_id": user_id}, body=fields))

    async def patch_user(self, user_id: str, fields: b.UserBody) -> a.UserAnswer:
        """Change some attributes of a user."""
        return await self._send(ApiCall("PATCH", "/v1/users", query={"user_id": user_id}, body=fields))

    async def get_user(self, user_id: str) -> a.UserAnswer:
        """Show the attributes of a user."""
        return await self._send(ApiCall("GET", "/v1/users", query={"user_id": user_id}))

    async def delete_user(self, user_id: str, *, erase: bool | None = None) -> a.ErasureAnswer | None:
        """Delete the attributes of a user, or everything."""
        return await self._send(ApiCall("DELETE", "/v1/users", query={"user_id": user_id, "erase": erase}))

    async def put_users(self, **body: Unpack[b.UsersBody]) -> a.RowsAnswer:
        """Put up to 1,000 users; answered when they are durable."""
        return await self._send(ApiCall("POST", "/v1/users", body=body))

    async def merge(self, **body: Unpack[b.MergeBody]) -> a.MergeAnswer:
        """Give the history of an anonymous visitor to a user; the visitor's id stands for the user from then on."""
        return await self._send(ApiCall("POST", "/v1/identities/merge", body=body))

    async def put_blocks(self, user_id: str, **body: Unpack[b.BlocksBody]) -> a.BlocksAnswer:
        """Block creators and tags for a user."""
        return await self._send(ApiCall("PUT", "/v1/blocks", query={"user_id": user_id}, body=body))

    async def get_blocks(self, user_id: str) -> a.BlocksAnswer:
        """Show the creators and tags that a user blocks."""
        return await self._send(ApiCall("GET", "/v1/blocks", query={"user_id": user_id}))

    async def delete_blocks(self, user_id: str) -> a.BlocksAnswer:
        """Remove all blocks of a user."""
        return await self._send(ApiCall("DELETE", "/v1/blocks", query={"user_id": user_id}))

    async def ready(self) -> a.Health:
        """Check that every stage answers a real request."""
        return await self._send(ApiCall("GET", "/readyz"))
