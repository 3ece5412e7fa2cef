"""A small catalog for tests of business rules, and rules compiled for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.stage import LocalReranking
from handsell.testing.small_catalog import NOW, draw_snapshot

CONFIG = Config(name="test", surfaces={"home": Surface(repeat="allow"), "email": Surface(repeat="allow")})


def draw_rule_catalog(rng: np.random.Generator, items: int = 200) -> Snapshot:
    """Item i has year 2000 + i % 20 and brand `b<i % 7>`; every tenth is explicit; all are available and years old."""
    number = np.arange(items)
    metadata = pa.table(
        {
            "item_id": [f"i{i}" for i in number],
            "year": 2000 + number % 20,
            "explicit": number % 10 == 0,
            "brand": [f"b{i % 7}" for i in number],
        }
    )
    published = np.full(items, NOW - 10**15)
    return replace(draw_snapshot(rng, items), metadata=metadata, published=published, available=np.ones(items, bool))


def compile_rules(snapshot: Snapshot, text: str, config: Config = CONFIG) -> CompiledRules:
    """Compile the TOML text of a rules file."""
    eligibility = Eligibility(snapshot, tuple(config.surfaces.values()))
    return CompiledRules.of(parse_rules(text.encode(), "rules.toml"), snapshot, eligibility, config)


def build_stage(snapshot: Snapshot, text: str | None, config: Config = CONFIG) -> LocalReranking:
    """Return the re-ranking stage with the rules of a TOML text; None: without rules."""
    eligibility = Eligibility(snapshot, tuple(config.surfaces.values()))
    rules = None if text is None else LiveRules(compile_rules(snapshot, text, config))
    return LocalReranking(snapshot, eligibility, config, rules=rules)


def write_rule(name: str, kind: str, **fields: Any) -> str:
    """Return one `[[rule]]` as TOML; a key may end in `_` where Python reserves the word, as `from_`."""
    lines = [f"{key.rstrip('_')} = {_toml(value)}" for key, value in fields.items()]
    return "\n".join(["[[rule]]", f'name = "{name}"', f'kind = "{kind}"', *lines, ""])


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
