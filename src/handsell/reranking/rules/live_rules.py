"""The rules that a process applies: reloaded when their file changes, kept if the new file is invalid."""

from __future__ import annotations

import logging
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
from handsell.eligibility.mask import Eligibility
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader
from handsell.reranking.rules.application import RuledCandidates, apply_rules
from handsell.reranking.rules.backfill import Backfill
from handsell.reranking.rules.counts import ShownSlates
from handsell.reranking.rules.pacing import Pacing
from handsell.reranking.rules.reading import Rules, parse_rules, read_rules, version_of
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.shared_counts import SharedCountReader

log = logging.getLogger(__name__)

BITS = 32  # of Slates.relaxed


@dataclass(frozen=True)
class CompiledRules:
    """One version of the rules on one catalog, with the impressions of its daily shares."""

    ruleset: RuleSet
    pacing: Pacing
    backfill: Backfill

    @classmethod
    def of(cls, rules: Rules, snapshot: Snapshot, eligibility: Eligibility, config: Config) -> CompiledRules:
        """Raises ConfigError for a rule that does not fit the catalog or the config."""
        arms = {name: tuple(experiment.arms) for name, experiment in config.experiments.items()}
        ruleset = RuleSet.of(rules, snapshot, config.surface_names, arms)
        return cls(ruleset, Pacing(ruleset), Backfill(ruleset, eligibility))

    def with_snapshot(self, snapshot: Snapshot, eligibility: Eligibility) -> CompiledRules:
        """Return the same rules on the next version of the live catalog; the counts of daily shares continue."""
        ruleset = self.ruleset.with_snapshot(snapshot)
        self.pacing.ruleset = ruleset
        return CompiledRules(ruleset, self.pacing, Backfill(ruleset, eligibility))

    def apply(self, requests: Requests, candidates: Candidates, allowed: np.ndarray, n: int) -> RuledCandidates:
        return apply_rules(self.ruleset, self.pacing, self.backfill, requests, candidates, allowed, n)

    def count(self, requests: Requests, item: np.ndarray) -> None:
        """Count the impressions of slates (B, n)."""
        if not len(self.pacing):
            return
        if requests.count is not None:
            item = np.where(np.arange(item.shape[1]) < requests.count[:, None], item, -1)
        self.pacing.add(ShownSlates(item, requests.time, requests.surface, requests.unit))


@dataclass(frozen=True, slots=True)
class RuledBatch:
    """One batch under one version of the rules."""

    compiled: CompiledRules
    result: RuledCandidates
    refused: str
    counted: bool

    def finish(self, requests: Requests, slates: Slates) -> Slates:
        """Count the impressions; return the slates with the version of the rules and the rules that could not hold."""
        if self.counted:
            self.compiled.count(requests, slates.item)
        stamp = RulesStamp(self.compiled.ruleset.version, self.refused, self.compiled.pacing.shares())
        unmet = self.result.unmet | self.result.displaced(slates.item)
        if not unmet:
            return replace(slates, rules=stamp)
        first, shape = len(slates.constraints), slates.item.shape
        relaxed = np.zeros(shape, np.uint32) if slates.relaxed is None else slates.relaxed.copy()
        reported = dict(list(unmet.items())[: BITS - first])
        for bit, rows in enumerate(reported.values()):
            relaxed[rows, :1] |= np.uint32(1 << (first + bit))  # of the whole slate: at position 0
        return replace(slates, rules=stamp, relaxed=relaxed, constraints=(*slates.constraints, *reported))


class LiveRules:
    """`current` is read once for a batch, so that one answer is made with one version."""

    def __init__(self, compiled: CompiledRules, refused: str = "", counted: bool = True):
        self.current, self.refused, self._counted = compiled, refused, counted
        self._changing = threading.Lock()  # held while `current` is replaced
        self.now = 0  # µs, the latest request's time

    def apply(self, requests: Requests, candidates: Candidates, allowed: np.ndarray, n: int) -> RuledBatch:
        """Apply the rules to slates of n positions; allowed (B, K) by eligibility."""
        compiled, self.now = self.current, max(self.now, int(requests.time.max()))
        return RuledBatch(compiled, compiled.apply(requests, candidates, allowed, n), self.refused, self._counted)

    def follow(self, snapshot: Snapshot, eligibility: Eligibility) -> None:
        """Apply the rules on the next version of the live catalog."""
        with self._changing:
            self.current = self.current.with_snapshot(snapshot, eligibility)

    def without_counting(self) -> LiveRules:
        """Return these rules, also when they change, for slates that no user sees."""
        return UncountedRules(self)


class UncountedRules(LiveRules):
    """The rules of another object as they are at each call; their impressions do not count."""

    def __init__(self, followed: LiveRules):
        super().__init__(followed.current, followed.refused, counted=False)
        self._followed = followed

    def apply(self, requests: Requests, candidates: Candidates, allowed: np.ndarray, n: int) -> RuledBatch:
        self.current, self.refused = self._followed.current, self._followed.refused
        return super().apply(requests, candidates, allowed, n)


class WatchedRules(LiveRules):
    """Checks the file every `serving.bundle_check_s`, in a thread that ends with the object."""

    def __init__(self, path: Path, snapshot: Snapshot, eligibility: Eligibility, config: Config):
        """Raises ConfigError if the file is invalid."""
        super().__init__(CompiledRules.of(read_rules(path), snapshot, eligibility, config))
        self._path, self._eligibility, self._config = path, eligibility, config
        self._reader = open_reader(config)
        weakref.finalize(self, self._reader.close).atexit = False
        self._counts = self._reader_for(self.current)
        self._last_error = ""  # of reading the log
        self._last_version = self.current.ruleset.version  # of the file at the last check

    def follow(self, snapshot: Snapshot, eligibility: Eligibility) -> None:
        with self._changing:
            self._eligibility = eligibility
            self.current = self.current.with_snapshot(snapshot, eligibility)

    def start(self) -> WatchedRules:
        threading.Thread(
            target=_watch, args=(weakref.ref(self), self._config.serving.bundle_check_s), daemon=True
        ).start()
        return self

    def reload_if_changed(self) -> None:
        """Reload rules atomically; keep the current version if the new one is invalid, and log this once.

        A change takes effect after two checks in a row have found it: a file may be empty while it is being written,
        and an empty file is valid.
        """
        try:
            content = self._path.read_bytes()
        except OSError as error:
            self._refuse("unreadable", f"rules {self._path} cannot be read ({error.strerror})")
            return
        version = version_of(content)
        settled, self._last_version = version == self._last_version, version
        if version == self.current.ruleset.version:
            self.refused = ""
            return
        if version == self.refused or not settled:
            return
        with self._changing:
            self._reload(content, version)

    def _reload(self, content: bytes, version: str) -> None:
        before = self.current
        try:
            rules = parse_rules(content, str(self._path))
            compiled = CompiledRules.of(rules, before.ruleset.snapshot, self._eligibility, self._config)
        except ConfigError as error:
            self._refuse(version, str(error))
            return
        compiled.pacing.continue_from(before.pacing, self.now)
        self._counts = self._reader_for(compiled)
        self.current, self.refused = compiled, ""
        log.info("rules %s are active: %d from %s", version, len(rules.rules), self._path)

    def read_shared_counts(self) -> None:
        """Read the impressions of all replicas; without the log, each replica paces its own."""
        if not self.now:
            return
        try:
            self._counts.read(self.now)
            self._last_error = ""
        except EventStoreError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.warning(
                    "the impression log cannot be read, quotas are paced by the impressions of this replica: %s", error
                )

    def _reader_for(self, compiled: CompiledRules) -> SharedCountReader:
        return SharedCountReader(compiled.pacing, self._reader, self._config.surface_names)

    def _refuse(self, version: str, why: str) -> None:
        if version != self.refused:
            log.warning("rules %s are refused, %s stay active: %s", version, self.current.ruleset.version, why)
            self.refused = version


def watch_rules(snapshot: Snapshot, eligibility: Eligibility, config: Config) -> WatchedRules | None:
    """Return the deployment's rules and start watching their file; None if it has none. Raises ConfigError."""
    path = config.rules_path
    return None if path is None else WatchedRules(path, snapshot, eligibility, config).start()


def _watch(reference: weakref.ref[WatchedRules], every_s: float) -> None:
    while (rules := reference()) is not None:
        try:
            rules.reload_if_changed()
            rules.read_shared_counts()
        except Exception:
            log.exception("the rules file cannot be checked; the current rules stay active")
        del rules
        time.sleep(every_s)
