"""Features are plug-ins: `@feature` registers a function of arrays under the name of its column.

    @feature("item_is_new", group="cross", default=0.0)
    def is_new(pairs: Pairs) -> np.ndarray:
        "Whether the item was published within the last day."
        return pairs.published > pairs.requests.time[:, None] - DAY_US

Everything else follows from the registration: the matrix column and the ranker's feature list, Feast's schema, the rows
that the features job writes, the skew check, docs/features.md and the contract tests. Built-in features are in
`features/definitions`; packages outside this repository register theirs as `core/plugins.py` describes.

| group | the function receives | and returns | source of its input |
|---|---|---|---|
| user | `UserStates` of B users, folded up to the request; its time (B,) | (B,) | Feast's user views, new events |
| item | `ItemActivity` of N (item, day) pairs | (N,) | the view item_activity, and the item snapshot |
| cross | `Pairs` of B requests and K candidates each | (B, K) | both |
| context | `Requests` | (B,) | the request |

Values are cast to float32; NaN means unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, get_args

import numpy as np

from handsell.core.errors import ConfigError
from handsell.core.plugins import Plugin, find_plugins

Group = Literal["user", "item", "cross", "context"]


@dataclass(frozen=True)
class Feature(Plugin):
    """One column of the feature matrix; made by `feature`."""

    package: ClassVar[str] = "handsell.features.definitions"
    group: Group
    value: Callable[..., np.ndarray]
    default: float = math.nan  # for a user, item or pair without data; if finite, all values must be finite
    windows_days: tuple[int, ...] = ()  # item features: the windows that are read from ItemActivity
    on_demand: bool = False  # cross features: also in Feast's on-demand view, see features/on_demand.py

    @property
    def description(self) -> str:
        """The first line of the function's docstring."""
        return (self.value.__doc__ or "").strip().partition("\n")[0]


def feature(
    name: str,
    *,
    group: Group,
    default: float = math.nan,
    windows_days: tuple[int, ...] = (),
    on_demand: bool = False,
) -> Callable[[Callable[..., np.ndarray]], Feature]:
    """Register the decorated function as a feature; the parameters are the fields of `Feature`.

    Raises ConfigError for a name that is not lower-case letters, digits and _, an unknown group, or an option that the
    group does not have.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f"feature {name!r}: expected a name of lower-case letters, digits and _")
    if group not in get_args(Group):
        raise ConfigError(f"feature {name}: expected a group of {', '.join(get_args(Group))}, got {group!r}")
    if (windows_days and group != "item") or (on_demand and group != "cross"):
        raise ConfigError(f"feature {name}: only item features have windows_days, only cross features are on_demand")
    return lambda value: Feature(name, group, value, default, windows_days, on_demand)


@cache
def find_features(group: Group) -> dict[str, Feature]:
    """The registered features of a group by name, in the order of their columns."""
    return {name: found for name, found in find_plugins(Feature).items() if found.group == group}
