"""The rules in force in a process: followed in their file, turned to whole, and kept where a new file is wrong."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests, RulesStamp, Slates
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.events.reader import EventReader
from handsell.reranking.rules.application import Applied, apply
from handsell.reranking.rules.backfill import Stock
from handsell.reranking.rules.counts import ShownSlates
from handsell.reranking.rules.pacing import Pacing
from handsell.reranking.rules.reading import Rules, parse_rules, read_rules, version_of
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.shared_counts import CommonCounts

log = logging.getLogger(__name__)

BITS = 32  # of Slates.relaxed


@dataclass(frozen=True)
class CompiledRules:
    """One version of the rules on one catalog, and what its quotas have seen."""

    ruleset: RuleSet
    pacing: Pacing
    stock: Stock

    @classmethod
    def of(cls, rules: Rules, snapshot: Snapshot, eligibility: Eligibility, config: Config) -> CompiledRules:
        """Raises ConfigError for what this catalog or this config does not understand."""
        ruleset = RuleSet.of(rules, snapshot, config.surface_names)
        return cls(ruleset, Pacing(ruleset), Stock(ruleset, eligibility))

    def apply(self, requests: Requests, candidates: Candidates, allowed: np.ndarray, n: int) -> Applied:
        return apply(self.ruleset, self.pacing, self.stock, requests, candidates, allowed, n)

    def note(self, requests: Requests, item: np.ndarray) -> None:
        """Count what callers are shown of slates (B, n)."""
        if not len(self.pacing):
            return
        if requests.count is not None:
            item = np.where(np.arange(item.shape[1]) < requests.count[:, None], item, -1)
        self.pacing.note(ShownSlates(item, requests.time, requests.surface, requests.unit))


@dataclass(frozen=True, slots=True)
class Ruling:
    """One batch under one version of the rules."""

    edition: CompiledRules
    applied: Applied
    refused: str
    counted: bool

    def done(self, requests: Requests, slates: Slates) -> Slates:
        """The slates selected, counted, and stamped with the version and with what could not hold."""
        if self.counted:
            self.edition.note(requests, slates.item)
        stamp = RulesStamp(self.edition.ruleset.version, self.refused, self.edition.pacing.shares())
        unmet = self.applied.unmet | self.applied.moved(slates.item)
        if not unmet:
            return replace(slates, rules=stamp)
        first, shape = len(slates.constraints), slates.item.shape
        relaxed = np.zeros(shape, np.uint32) if slates.relaxed is None else slates.relaxed.copy()
        told = dict(list(unmet.items())[: BITS - first])
        for bit, rows in enumerate(told.values()):
            relaxed[rows, :1] |= np.uint32(1 << (first + bit))  # of the whole slate: told at its first position
        return replace(slates, rules=stamp, relaxed=relaxed, constraints=(*slates.constraints, *told))


class RuleBook:
    """`current` is taken once for a batch: one answer is made with one version."""

    def __init__(self, edition: CompiledRules, refused: str = "", counted: bool = True):
        self.current, self.refused, self._counted = edition, refused, counted
        self.now = 0  # µs, the latest request's time

    def apply(self, requests: Requests, candidates: Candidates, allowed: np.ndarray, n: int) -> Ruling:
        """`requests` may see allowed (B, K) of the candidates, in slates of n positions."""
        edition, self.now = self.current, max(self.now, int(requests.time.max()))
        return Ruling(edition, edition.apply(requests, candidates, allowed, n), self.refused, self._counted)

    def uncounted(self) -> RuleBook:
        """The present rules for slates that nobody is shown."""
        return RuleBook(self.current, self.refused, counted=False)


class FollowedRules(RuleBook):
    """Looks at the file's content every `serving.follow_s`, in a thread that ends with the object."""

    def __init__(self, path: Path, snapshot: Snapshot, eligibility: Eligibility, config: Config):
        """Raises ConfigError: at the start there are no rules to keep."""
        super().__init__(CompiledRules.of(read_rules(path), snapshot, eligibility, config))
        self._path, self._eligibility, self._config = path, eligibility, config
        self._reader = EventReader(Layout(config.state).event_log)
        self._counts = self._counting(self.current)
        self._told = ""  # why counts or file could not be read, as last logged
        self._seen = self.current.ruleset.version  # of the file at the last look

    def start(self) -> FollowedRules:
        threading.Thread(target=_follow, args=(weakref.ref(self), self._config.serving.follow_s), daemon=True).start()
        return self

    def look(self) -> None:
        """Turn to the file's rules where they have changed; one that is wrong is refused once, and told.

        What two looks in a row have found counts: a file that is being written is empty for a moment, and no rules
        are rules too.
        """
        try:
            content = self._path.read_bytes()
        except OSError as error:
            self._refuse("unreadable", f"rules {self._path} cannot be read ({error.strerror})")
            return
        version, before = version_of(content), self.current
        settled, self._seen = version == self._seen, version
        if version == before.ruleset.version:
            self.refused = ""
            return
        if version == self.refused or not settled:
            return
        try:
            rules = parse_rules(content, str(self._path))
            edition = CompiledRules.of(rules, before.ruleset.snapshot, self._eligibility, self._config)
        except ConfigError as error:
            self._refuse(version, str(error))
            return
        edition.pacing.goes_on_from(before.pacing, self.now)
        self._counts = self._counting(edition)
        self.current, self.refused = edition, ""
        log.info("rules %s are in force: %d from %s", version, len(rules.rules), self._path)

    def count(self) -> None:
        """Take up what all replicas have shown; without the log, each paces its own."""
        if not self.now:
            return
        try:
            self._counts.read(self.now)
            self._told = ""
        except sqlite3.Error as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("the impression log cannot be read, quotas are paced by what this replica shows: %s", error)

    def _counting(self, edition: CompiledRules) -> CommonCounts:
        return CommonCounts(edition.pacing, self._reader, self._config.surface_names)

    def _refuse(self, version: str, why: str) -> None:
        if version != self.refused:
            log.warning(
                "rules %s are refused, those of %s stay in force: %s", version, self.current.ruleset.version, why
            )
            self.refused = version


def followed(snapshot: Snapshot, eligibility: Eligibility, config: Config) -> FollowedRules | None:
    """The deployment's rules, followed from now on; None where it has none. Raises ConfigError."""
    path = config.rules_path
    return None if path is None else FollowedRules(path, snapshot, eligibility, config).start()


def _follow(book: weakref.ref[FollowedRules], every_s: float) -> None:
    while (here := book()) is not None:
        try:
            here.look()
            here.count()
        except Exception:
            log.exception("rules cannot be followed; those in force stay")
        del here
        time.sleep(every_s)
