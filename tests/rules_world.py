"""A small catalog and rules for it: even years, some explicit items, and one edition of rules at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from handsell.config import Config
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.stage import LocalReranking
from handsell.testing.small_catalog import NOW, draw_snapshot

CONFIG = Config(name="test", surfaces={"home": Surface(repeat="allow"), "email": Surface(repeat="allow")})


def shelf_of(rng, items=200):
    """Item i is of year 2000 + i % 20; every tenth is explicit; every item has been out for years."""
    made = draw_snapshot(rng, items)
    number = np.arange(items)
    table = pa.table(
        {
            "item_id": [f"i{i}" for i in number],
            "year": 2000 + number % 20,
            "explicit": number % 10 == 0,
        }
    )
    published = np.full(items, NOW - 10**15)
    return replace(made, metadata=table, published=published, available=np.ones(items, bool))


def edition(shelf, text: str, config: Config = CONFIG) -> CompiledRules:
    eligibility = Eligibility(shelf, tuple(config.surfaces.values()))
    return CompiledRules.of(parse_rules(text.encode(), "rules.toml"), shelf, eligibility, config)


def stage(shelf, text: str, config: Config = CONFIG) -> LocalReranking:
    eligibility = Eligibility(shelf, tuple(config.surfaces.values()))
    return LocalReranking(shelf, eligibility, config, rules=LiveRules(edition(shelf, text, config)))


def rule(name: str, kind: str, **fields) -> str:
    """One [[rule]] of a file; values as Python writes them, which TOML reads too."""
    lines = [f"{key.rstrip('_')} = {_toml(value)}" for key, value in fields.items()]
    return "\n".join(["[[rule]]", f'name = "{name}"', f'kind = "{kind}"', *lines, ""])


def _toml(value) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
