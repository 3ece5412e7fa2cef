"""Writes docs/features.md from the registered features: `python docs/make_features.py`. A test compares."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

from handsell.features.registry import Feature, Group, find_features

PAGE = Path(__file__).with_name("features.md")
OPENING = """\
# Features
<!-- written by docs/make_features.py from the registrations in src/handsell/features/definitions -->

The columns of the ranker's feature matrix, computed for each request from the user's stored row, the user's newer
events, the item snapshot and the request. To add one: [CONTRIBUTING](../CONTRIBUTING.md#add-a-user-feature).

Other columns follow from the configuration: `src_<retriever>_rank` (position in the retriever's list, 0 = first),
`src_<retriever>_z` (its score, standardized within the request), `src_count` and `src_fused` (number of retrievers that
returned the item, and their fused score); `user_log_count_<event type>` (log(1 + number of events)); and
`user_<column>` and `item_<column>` of `features.user_columns` and `features.item_columns`.
"""
TITLES = {
    "user": "of the user",
    "item": "of the item, as of the start of the day",
    "cross": "of the user and the item",
    "context": "of the request",
}


def page() -> str:
    """The whole document."""
    parts = [OPENING]
    for group in get_args(Group):
        parts.append(f"## {group}: {TITLES[group]}\n\n| feature | value | if nothing is known |\n|---|---|---|")
        parts.extend(_row(found) for found in find_features(group).values())
        parts.append("")
    return "\n".join(parts)


def _row(found: Feature) -> str:
    default = "–" if found.group == "context" else "missing" if math.isnan(found.default) else f"{found.default:.4g}"
    return f"| `{found.name}` | {found.description} | {default} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
