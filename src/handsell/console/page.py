"""A page of the console, as `pages/registry.py` lists it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.routing import Route

from handsell.access.caller import Scope


@dataclass(frozen=True)
class ConsolePage:
    """`name` is its place below `/console` and its folder of templates; `routes` are relative to that place.

    Without `scope` the person's key cannot see the page.
    """

    name: str
    title: str
    routes: tuple[Route, ...]
    scope: Scope = "recommend"
