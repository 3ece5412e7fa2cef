"""Check of JSON responses in tests against the OpenAPI document of the service."""

from __future__ import annotations

import re
from typing import Any

import httpx
from jsonschema import Draft202012Validator


class ResponseCheck:
    """Response hook for httpx; raises AssertionError if a response does not match the document."""

    def __init__(self, document: dict[str, Any]):
        self._document = document
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operations)
            for path, operations in document["paths"].items()
        ]

    def __call__(self, response: httpx.Response) -> None:
        response.read()
        self.check(response)

    async def check_async(self, response: httpx.Response) -> None:
        """Hook for an asynchronous client."""
        await response.aread()
        self.check(response)

    def check(self, response: httpx.Response) -> None:
        media_type = response.headers.get("content-type", "").split(";")[0]
        raw = response.request.url.raw_path.split(b"?")[0].decode()
        found = next((operations for path, operations in self._paths if path.fullmatch(raw)), None)
        operation = (found or {}).get(response.request.method.lower())
        if operation is None or "json" not in media_type:
            return  # not a documented route; other tests check those
        answers = operation["responses"]
        assert str(response.status_code) in answers, f"{raw}: {response.status_code} is not documented"
        schema = answers[str(response.status_code)]["content"][media_type]["schema"]
        root = {**schema, "components": self._document["components"]}
        wrong = [
            f"{error.json_path}: {error.message}" for error in Draft202012Validator(root).iter_errors(response.json())
        ]
        assert not wrong, f"{response.request.method} {raw}: {'; '.join(wrong[:5])}"
