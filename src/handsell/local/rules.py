"""What a file of business rules would change: recorded requests answered with the rules of today and with the new ones.

Candidates and scores are made once, from what is known of each user now; both re-rankings run at the recorded moment,
so that windows and pacing see the day as it was. Quotas count from the first request of the preview.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from handsell.bundles.stages import load_stages
from handsell.catalog.snapshot import NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.clock import Clock
from handsell.core.errors import ConfigError
from handsell.core.failures import Failures
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.events.reader import EventReader
from handsell.features.request_builder import OnlineRows, QueryBatch, build_requests
from handsell.features.store import open_store
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import Rules, read_rules
from handsell.reranking.rules.scope import unit_of
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.loading import LIVE, OpenedBundle, open_bundle

CHUNK = 16  # requests of one pass, as the gateway batches them
NO_RULES = Rules("none", (), {}, "none")


@dataclass(frozen=True)
class RecordedRequests:
    """N requests that somebody made, in their order."""

    user_id: list[str | None]
    surface: np.ndarray  # (N,) int8
    time: np.ndarray  # (N,) int64 µs
    count: np.ndarray  # (N,) int16
    recorded: bool  # False: made up from users of the catalog, for want of a log


@dataclass(frozen=True)
class Preview:
    """The same N requests under two sets of rules; slates are (N, n)."""

    asked: RecordedRequests
    before: Rules
    after: CompiledRules
    shelf: Snapshot
    surfaces: tuple[str, ...]
    item: tuple[np.ndarray, np.ndarray]  # before, after
    score: tuple[np.ndarray, np.ndarray]
    unmet: Counter[str]

    @property
    def changed(self) -> np.ndarray:
        """(N,) how many positions show another item."""
        return (self.item[0] != self.item[1]).sum(axis=1)

    @cached_property
    def active(self) -> np.ndarray:
        """(R, N) bool: the new rule holds for the request."""
        unit = np.array([unit_of(user) for user in self.asked.user_id], np.uint64)
        return self.after.ruleset.scope.active(self.asked.time, self.asked.surface, unit)


def open_rules(config: Config, path: Path) -> tuple[OpenedBundle, CompiledRules]:
    """The live bundle and the file's rules on it; raises ConfigError or BundleError."""
    opened = open_bundle(str(config.source), LIVE)
    return opened, compile_rules(opened, read_rules(path))


def compile_rules(opened: OpenedBundle, rules: Rules) -> CompiledRules:
    return CompiledRules.of(rules, opened.snapshot, Eligibility.of(opened.snapshot, opened.config), opened.config)


def preview(config: Config, path: Path, requests: int) -> Preview:
    """Raises ConfigError or BundleError."""
    opened, after = open_rules(config, path)
    before = read_rules(config.rules_path) if config.rules_path is not None else NO_RULES
    reader = EventReader(Layout(config.state).event_log)
    asked = recorded(reader, opened, requests) or made_up(opened, requests)
    known = _build_requests(opened, reader, asked)
    stages = load_stages(opened.path, opened.config, snapshot=opened.snapshot)
    funnel, eligibility = stages.funnel, Eligibility.of(opened.snapshot, opened.config)
    both = [LiveRules(compile_rules(opened, before)), LiveRules(after)]
    rerankings = [LocalReranking(opened.snapshot, eligibility, opened.config, rules=rules) for rules in both]
    n, unmet, slates = int(asked.count.max()), Counter[str](), ([], [])  # type: ignore[var-annotated]
    for start in range(0, len(known), CHUNK):
        part = known.take(slice(start, start + CHUNK))
        found = run_local(funnel.candidates.candidates(part, funnel.k))
        ranked = run_local(funnel.ranking.rank(part, found, max(funnel.ranked, n)))
        then = replace(part, time=asked.time[start : start + CHUNK])
        for kept, reranking in zip(slates, rerankings, strict=True):
            kept.append(run_local(reranking.rerank(then, ranked, n)))
        _note_unmet(unmet, slates[1][-1], n)
    item, score = ([_seen(s, asked.count, name) for s in slates] for name in ("item", "score"))
    names = opened.config.surface_names
    return Preview(asked, before, after, opened.snapshot, names, (item[0], item[1]), (score[0], score[1]), unmet)


def recorded(reader: EventReader, opened: OpenedBundle, most: int) -> RecordedRequests | None:
    """The latest requests of the impression log, for surfaces that there still are; None where it has none."""
    names = opened.config.surface_names
    rows = reader.read_slates(max(reader.find_slate_offset(NEVER) - most, 0), most)
    rows = sorted((row for row in rows if row[3] in names and row[4]), key=lambda row: row[1])
    if not rows:
        return None
    return RecordedRequests(
        [row[2] for row in rows],
        np.array([names.index(row[3]) for row in rows], np.int8),
        np.array([row[1] for row in rows], np.int64),
        np.array([len(row[4]) for row in rows], np.int16),
        True,
    )


def made_up(opened: OpenedBundle, most: int) -> RecordedRequests:
    """Users from all over the catalog, who ask on the first surface at the service's now."""
    users = Vocabulary.load(Layout(opened.config.state).catalog / "users")
    if not len(users):
        raise ConfigError("a preview expected recorded requests or users of the catalog; there are neither")
    chosen = np.unique(np.linspace(0, len(users) - 1, min(most, len(users))).astype(np.int32))
    now, home = Clock.of(opened.config.serving.clock, opened.manifest).now(), opened.config.surface_names.index("home")
    n = len(chosen)
    count = np.full(n, opened.config.surfaces["home"].count, np.int16)
    return RecordedRequests(list(users.ids(chosen)), np.full(n, home, np.int8), np.full(n, now), count, False)


def _build_requests(opened: OpenedBundle, reader: EventReader, recorded: RecordedRequests) -> Requests:
    """The recorded requests with what is known of their users now."""
    config, n = opened.config, len(recorded.user_id)
    now = Clock.of(config.serving.clock, opened.manifest).now()
    queries = QueryBatch.of(recorded.user_id, np.full(n, now, np.int64), recorded.surface)
    rows = OnlineRows(open_store(config), config).read(recorded.user_id)
    return build_requests(queries, rows, reader, opened.snapshot, config, Failures(strict=True)).requests


def _note_unmet(unmet: Counter[str], slates: Slates, n: int) -> None:
    for row in range(len(slates)):
        unmet.update(name for name in slates.relaxed_constraints(row, n) if name.startswith("rule:"))


def _seen(parts: Sequence[Slates], count: np.ndarray, name: str) -> np.ndarray:
    """(N, n) items or scores as callers saw them: -1 and NaN beyond what was asked for."""
    item = np.concatenate([part.item for part in parts])
    hidden = (np.arange(item.shape[1]) >= count[:, None]) | (item == NONE)
    values = np.concatenate([getattr(part, name) for part in parts])
    return np.where(hidden, NONE if name == "item" else np.nan, values)


# -- what it comes to ----------------------------------------------------------------------------------------------


def summary(found: Preview, examples: int = 3, names: int = 8) -> dict[str, Any]:
    """Plain values: what `--json` prints and what the tables show."""
    before, after = (float(np.nanmean(s)) if np.isfinite(s).any() else 0.0 for s in found.score)
    shown = [int((item != NONE).sum()) for item in found.item]
    most_changed = np.argsort(-found.changed, kind="stable")[:examples]
    return {
        "requests": len(found.changed),
        "recorded": found.asked.recorded,
        "rules": {"before": found.before.version, "after": found.after.ruleset.version},
        "changed_slates": int((found.changed > 0).sum()),
        "impressions": {"before": shown[0], "after": shown[1]},
        "mean_score": {"before": before, "after": after, "given_up": before - after},
        "by_rule": by_rule(found),
        "items": moved(found, lambda number: found.shelf.items.ids(number), lambda item: item, names),
        "creators": moved(found, lambda number: found.shelf.creators.ids(number), _creator(found.shelf), names),
        "slates": [slate_pair(found, int(row)) for row in most_changed if found.changed[row]],
    }


def by_rule(found: Preview) -> list[dict[str, Any]]:
    """Of each rule the share of impressions of its items, where it was in force, before and after."""
    ruleset, asked, active = found.after.ruleset, found.asked, found.active
    shares = []
    for item in found.item:
        own = (ruleset.matches(item, asked.time) & active[:, :, None]).sum(axis=(1, 2))
        every = ((item != NONE) & active[:, :, None]).sum(axis=(1, 2))
        shares.append(np.divide(own, every, out=np.zeros(len(own)), where=every > 0))
    return [
        {
            "rule": rule.name,
            "kind": rule.kind,
            "requests": int(active[r].sum()),
            "before": float(shares[0][r]),
            "after": float(shares[1][r]),
            "could_not_hold": found.unmet[f"rule:{rule.name}"],
        }
        for r, rule in enumerate(ruleset.rules.rules)
    ]


def _creator(shelf: Snapshot):
    return lambda item: np.where(item == NONE, NONE, shelf.creator[np.maximum(item, 0)])


def moved(found: Preview, ids, group, names: int) -> dict[str, list[dict[str, Any]]]:
    """Who gains and who loses most impressions, by item or by what `group` makes of items."""
    counts = [Counter(group(item)[item != NONE].tolist()) for item in found.item]
    change = {key: counts[1][key] - counts[0][key] for key in counts[0] | counts[1] if key != NONE}
    ordered = sorted(change, key=lambda key: (-change[key], key))
    told = {"winners": [k for k in ordered if change[k] > 0][:names]}
    told["losers"] = [k for k in ordered[::-1] if change[k] < 0][:names]
    return {
        side: [
            {"id": name, "before": counts[0][key], "after": counts[1][key], "change": change[key]}
            for key, name in zip(keys, ids(np.array(keys, np.int32)) if keys else [], strict=True)
        ]
        for side, keys in told.items()
    }


def slate_pair(found: Preview, row: int) -> dict[str, Any]:
    """One request's slates, position by position."""
    ruleset, asked = found.after.ruleset, found.asked
    matches = ruleset.matches(found.item[1][row : row + 1], asked.time[row : row + 1])[:, 0]
    matches &= found.active[:, row : row + 1]
    names = [rule.name for rule in ruleset.rules.rules]
    sides = [_listed(found.shelf, item[row], score[row]) for item, score in zip(found.item, found.score, strict=True)]
    for at, entry in enumerate(sides[1]):
        entry["rules"] = [name for r, name in enumerate(names) if matches[r, at]]
    surface = found.surfaces[asked.surface[row]]
    return {"user_id": asked.user_id[row], "surface": surface, "before": sides[0], "after": sides[1]}


def _listed(shelf: Snapshot, item: np.ndarray, score: np.ndarray) -> list[dict[str, Any]]:
    item, score = item[item != NONE], score[item != NONE]
    ids = shelf.items.ids(item) if len(item) else []
    titled = "title" in shelf.metadata.column_names
    titles = shelf.metadata["title"].take(item).to_pylist() if titled else [""] * len(ids)
    return [
        {"item_id": i, "title": title or "", "score": round(float(s), 6)}
        for i, title, s in zip(ids, titles, score, strict=True)
    ]
