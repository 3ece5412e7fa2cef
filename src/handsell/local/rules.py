"""Preview a file of business rules: recorded requests, answered with the current rules and with the new ones.

Candidates and scores are computed once, from the present state of users and catalog. Both re-rankings run as of the
recorded time, so that time windows and pacing see the recorded day, and with the arms that the users have now. Daily
quotas count from the first request of the preview.
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
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.clock import Clock
from handsell.core.failures import Failures
from handsell.core.funnel import run_local
from handsell.eligibility.mask import Eligibility
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import open_reader
from handsell.features.request_builder import QueryBatch, build_requests
from handsell.features.row_columns import change_attributes
from handsell.features.storage.online_rows import OnlineRows
from handsell.features.store import open_store
from handsell.local.recorded_requests import RecordedRequests, read_recorded, sample_users
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import Rules, read_rules
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.loading import LIVE, OpenedBundle, open_bundle

CHUNK = 16  # requests of one batch, as in the gateway
NO_RULES = Rules("none", (), {}, "none")


@dataclass(frozen=True)
class Preview:
    """The same N requests under two sets of rules; slates are (N, n)."""

    requests: RecordedRequests
    before: Rules
    after: CompiledRules
    catalog: Snapshot
    surfaces: tuple[str, ...]
    item: tuple[np.ndarray, np.ndarray]  # before, after
    score: tuple[np.ndarray, np.ndarray]
    unmet: Counter[str]

    @property
    def changed(self) -> np.ndarray:
        """(N,) number of positions with another item."""
        return (self.item[0] != self.item[1]).sum(axis=1)

    @cached_property
    def active(self) -> np.ndarray:
        """(R, N) bool, whether each new rule is active for the request."""
        asked = self.requests
        return self.after.ruleset.scope.active(asked.time, asked.surface, asked.unit, asked.arms)


def open_rules(config: Config, path: Path) -> tuple[OpenedBundle, CompiledRules]:
    """Return the live bundle and the file's rules compiled for its catalog as of now.

    Raises ConfigError or BundleError.
    """
    opened = open_bundle(str(config.source), LIVE)
    return opened, compile_rules(opened, read_rules(path), opened.live.snapshot)


def compile_rules(opened: OpenedBundle, rules: Rules, catalog: Snapshot) -> CompiledRules:
    return CompiledRules.of(rules, catalog, Eligibility.of(catalog, opened.config), opened.config)


def preview_rules(config: Config, path: Path, requests: int) -> Preview:
    """Answer up to this many recorded requests with both sets of rules; raises ConfigError or BundleError."""
    opened, after = open_rules(config, path)
    catalog = after.ruleset.snapshot  # one version throughout: later changes do not matter
    before = read_rules(config.rules_path) if config.rules_path is not None else NO_RULES
    reader = open_reader(config)
    recorded = read_recorded(reader, opened, requests) or sample_users(reader, opened, requests)
    known = _build_requests(opened, catalog, reader, recorded)
    stages = load_stages(opened.path, opened.config, snapshot=opened.snapshot).with_snapshot(catalog)
    funnel, eligibility = stages.funnel, Eligibility.of(catalog, opened.config)
    both = [LiveRules(compile_rules(opened, before, catalog)), LiveRules(after)]
    rerankings = [LocalReranking(catalog, eligibility, opened.config, rules=rules) for rules in both]
    n, unmet, slates = int(recorded.count.max()), Counter[str](), ([], [])  # type: ignore[var-annotated]
    for start in range(0, len(known), CHUNK):
        part = known.take(slice(start, start + CHUNK))
        found = run_local(funnel.candidates.candidates(part, funnel.k))
        ranked = run_local(funnel.ranking.rank(part, found, max(funnel.ranked, n)))
        then = replace(part, time=recorded.time[start : start + CHUNK])
        for kept, reranking in zip(slates, rerankings, strict=True):
            kept.append(run_local(reranking.rerank(then, ranked, n)))
        _count_unmet(unmet, slates[1][-1], n)
    item, score = ([_stack_shown(s, recorded.count, name) for s in slates] for name in ("item", "score"))
    names = opened.config.surface_names
    return Preview(recorded, before, after, catalog, names, (item[0], item[1]), (score[0], score[1]), unmet)


def _build_requests(
    opened: OpenedBundle, catalog: Snapshot, reader: EventReader, recorded: RecordedRequests
) -> Requests:
    """Build requests from the users' present state."""
    config, n = opened.config, len(recorded.user_id)
    now = Clock.of(config.serving.clock, opened.manifest).now()
    queries = QueryBatch.of(recorded.user_id, np.full(n, now, np.int64), recorded.surface)
    stored = OnlineRows(open_store(config), config).read(recorded.user_id)
    rows = change_attributes(stored, recorded.user_id, opened.live.users)
    found = build_requests(queries, rows, reader, catalog, config, Failures(strict=True)).requests
    return replace(found, unit=recorded.unit, arms=recorded.arms)


def _count_unmet(unmet: Counter[str], slates: Slates, n: int) -> None:
    for row in range(len(slates)):
        unmet.update(name for name in slates.relaxed_constraints(row, n) if name.startswith("rule:"))


def _stack_shown(parts: Sequence[Slates], count: np.ndarray, name: str) -> np.ndarray:
    """Return (N, n) items or scores as callers see them: -1 and NaN beyond the requested count."""
    item = np.concatenate([part.item for part in parts])
    hidden = (np.arange(item.shape[1]) >= count[:, None]) | (item == NONE)
    values = np.concatenate([getattr(part, name) for part in parts])
    return np.where(hidden, NONE if name == "item" else np.nan, values)


# -- summary -------------------------------------------------------------------------------------------------------


def summarize_preview(found: Preview, examples: int = 3, names: int = 8) -> dict[str, Any]:
    """Return the values that `--json` prints and the tables show."""
    before, after = (float(np.nanmean(s)) if np.isfinite(s).any() else 0.0 for s in found.score)
    shown = [int((item != NONE).sum()) for item in found.item]
    most_changed = np.argsort(-found.changed, kind="stable")[:examples]
    return {
        "requests": len(found.changed),
        "recorded": found.requests.recorded,
        "rules": {"before": found.before.version, "after": found.after.ruleset.version},
        "changed_slates": int((found.changed > 0).sum()),
        "impressions": {"before": shown[0], "after": shown[1]},
        "mean_score": {"before": before, "after": after, "loss": before - after},
        "by_rule": summarize_rules(found),
        "items": find_changes(found, lambda number: found.catalog.items.ids(number), lambda item: item, names),
        "creators": find_changes(found, lambda n: found.catalog.creators.ids(n), _creator_of(found.catalog), names),
        "slates": [compare_slates(found, int(row)) for row in most_changed if found.changed[row]],
    }


def summarize_rules(found: Preview) -> list[dict[str, Any]]:
    """Return for each rule the share of its items in the impressions of active requests, before and after."""
    ruleset, recorded, active = found.after.ruleset, found.requests, found.active
    shares = []
    for item in found.item:
        own = (ruleset.matches(item, recorded.time) & active[:, :, None]).sum(axis=(1, 2))
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


def _creator_of(catalog: Snapshot):
    return lambda item: np.where(item == NONE, NONE, catalog.creator[np.maximum(item, 0)])


def find_changes(found: Preview, ids, group, names: int) -> dict[str, list[dict[str, Any]]]:
    """Return the ids with the greatest gain and loss of impressions, by `group` of the items (N, n)."""
    counts = [Counter(group(item)[item != NONE].tolist()) for item in found.item]
    change = {key: counts[1][key] - counts[0][key] for key in counts[0] | counts[1] if key != NONE}
    ordered = sorted(change, key=lambda key: (-change[key], key))
    keys_of = {"winners": [k for k in ordered if change[k] > 0][:names]}
    keys_of["losers"] = [k for k in ordered[::-1] if change[k] < 0][:names]
    return {
        side: [
            {"id": name, "before": counts[0][key], "after": counts[1][key], "change": change[key]}
            for key, name in zip(keys, ids(np.array(keys, np.int32)) if keys else [], strict=True)
        ]
        for side, keys in keys_of.items()
    }


def compare_slates(found: Preview, row: int) -> dict[str, Any]:
    """Return both slates of one request."""
    ruleset, recorded = found.after.ruleset, found.requests
    matches = ruleset.matches(found.item[1][row : row + 1], recorded.time[row : row + 1])[:, 0]
    matches &= found.active[:, row : row + 1]
    names = [rule.name for rule in ruleset.rules.rules]
    shown = zip(found.item, found.score, strict=True)
    sides = [_list_items(found.catalog, item[row], score[row]) for item, score in shown]
    for at, entry in enumerate(sides[1]):
        entry["rules"] = [name for r, name in enumerate(names) if matches[r, at]]
    surface = found.surfaces[recorded.surface[row]]
    return {"user_id": recorded.user_id[row], "surface": surface, "before": sides[0], "after": sides[1]}


def _list_items(catalog: Snapshot, item: np.ndarray, score: np.ndarray) -> list[dict[str, Any]]:
    item, score = item[item != NONE], score[item != NONE]
    ids = catalog.items.ids(item) if len(item) else []
    metadata = catalog.read_metadata(item)
    titles = metadata["title"].to_pylist() if "title" in metadata.column_names else [""] * len(ids)
    return [
        {"item_id": i, "title": title or "", "score": round(float(s), 6)}
        for i, title, s in zip(ids, titles, score, strict=True)
    ]
