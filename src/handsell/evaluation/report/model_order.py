"""The order of models in tables and figures of the served evaluation."""

from __future__ import annotations

from collections.abc import Mapping

KIND_ORDER = ("funnel", "ranker", "blend", "retriever", "baseline")


def order_by_kind(kinds: Mapping[str, str], scores: Mapping[str, float | None]) -> list[str]:
    """Return the names of models in the order of KIND_ORDER, within a kind by descending score."""
    return sorted(kinds, key=lambda name: (KIND_ORDER.index(kinds[name]), -(scores[name] or 0.0)))
