"""What the page shows, as its address says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from handsell.core.errors import HandsellError

DIALS = ("diversity", "novelty", "exploration")
LISTS = ("event",)
MOST_EVENTS = 50


class ViewError(HandsellError):
    """An address of the page that cannot be shown."""


@dataclass(frozen=True)
class ExploreView:
    """`compare` is empty, or KIND:NAME of what the second slate is made with: a bundle, an arm, a surface.

    `event` are events that are only imagined, as `GET /v1/preview` takes them. `item` is the item whose story is told,
    of the first or the second (`side` b) slate.
    """

    user: str = ""
    surface: str = "home"
    compare: str = ""
    diversity: float | None = None
    novelty: float | None = None
    exploration: float | None = None
    event: tuple[str, ...] = ()
    item: str = ""
    side: str = "a"

    @property
    def has_dials(self) -> bool:
        return any(getattr(self, name) is not None for name in DIALS)

    @property
    def has_second(self) -> bool:
        """Whether there is a second slate."""
        return bool(self.compare) or self.has_dials

    def change(self, **changes: Any) -> ExploreView:
        return replace(self, **changes)

    def with_event(self, kind: str, item_id: str) -> ExploreView:
        """Return the view after one more imagined event."""
        return replace(self, event=(*self.event, f"{kind}:{item_id}")[-MOST_EVENTS:])

    def without_event(self, place: int) -> ExploreView:
        return replace(self, event=tuple(one for at, one in enumerate(self.event) if at != place))

    def to_query(self) -> str:
        """Return the query of the page's address; what is not set is left out."""
        pairs: list[tuple[str, str]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default or value is None:
                continue
            values = value if field.name in LISTS else (value,)
            pairs += [(field.name, f"{one:g}" if isinstance(one, float) else one) for one in values]
        return urlencode(pairs)

    def list_parameters(self, side: str) -> dict[str, Any]:
        """Return the parameters of `GET /v1/preview` for one of the slates."""
        asked: dict[str, Any] = {"user_id": self.user, "surface": self.surface, "events": list(self.event)}
        if side == "b":
            kind, _, name = self.compare.partition(":")
            asked |= {kind: name} if kind in ("bundle", "arm", "surface") and name else {}
            asked |= {dial: value for dial in DIALS if (value := getattr(self, dial)) is not None}
        return asked


def read_view(query: QueryParams) -> ExploreView:
    """Return the view of an address; raises ViewError.

    A dial that stands where the page has put it (`base_…`) is not set, and a surface is not compared with itself.
    """
    user, compare, item = (query.get(name, "").strip() for name in ("user", "compare", "item"))
    surface = query.get("surface", "").strip() or "home"
    compare = "" if compare == f"surface:{surface}" else compare
    diversity, novelty, exploration = (_read_dial(name, query) for name in DIALS)
    return ExploreView(
        user, surface, compare, diversity, novelty, exploration,
        tuple(query.getlist("event"))[-MOST_EVENTS:], item, "b" if query.get("side") == "b" else "a",
    )  # fmt: skip


def _read_dial(name: str, query: QueryParams) -> float | None:
    text = query.get(name, "").strip()
    if not text or text == query.get(f"base_{name}"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ViewError(f"{name}: expected a number from 0 to 1, got {text[:40]!r}: move the dial again")
    return value


def find_titles(items: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return titles by id, of the items of a slate and of a history that have one."""
    found = {str(one["item_id"]): str(one["title"]) for one in history if one.get("title")}
    for one in items:
        if title := (one.get("metadata") or {}).get("title"):
            found[str(one["item_id"])] = str(title)
    return found
