"""A simulated day with bursts of traffic, where replicas see each other's impressions a second late."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.reranking.rules.counts import ImpressionCounts, ShownSlates, count_impressions
from handsell.reranking.rules.pacing import Pacing, SharedCounts
from handsell.testing.rule_catalog import build_stage, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import draw_candidates, draw_requests

MIDNIGHT = 20_600 * DAY_US
SLATE = 10
NEW = "item.year == 2019"  # one item in twenty


class Day:
    """Replicas with a stage of their own each, and what the impression log holds of them all."""

    def __init__(self, rng, rules: str, replicas: int, logged: bool = True):
        self.rng, self.shelf = rng, draw_rule_catalog(rng, 400)
        self.stages = [build_stage(self.shelf, rules) for _ in range(replicas)]
        self.seconds, self.logged = 0.0, logged
        for each in self.stages:
            current = each.rules.current
            pacing = Pacing(current.ruleset, clock=lambda: self.seconds)
            each.rules.current = replace(current, pacing=pacing)
        self.slates: list[tuple[float, np.ndarray]] = []  # (second, items) as logged
        self.read, self.told, self.counts = 0.0, 0, None
        self.batches = [self.batch() for _ in range(40)]

    def batch(self, rows: int = 4):
        asked = draw_requests(self.rng, self.shelf, rows)
        return replace(asked, count=np.full(rows, SLATE, np.int16)), draw_candidates(self.rng, self.shelf, rows, 50)

    def serve(self, replica: int, favor: float) -> None:
        """One micro-batch; `favor` moves the scores of new items, so that they come by themselves or never do."""
        asked, found = self.batches[self.rng.integers(len(self.batches))]
        time = MIDNIGHT + int(self.seconds * 1e6)
        asked = replace(asked, time=np.full(len(asked), time))
        new = found.item % 20 == 19
        found = replace(found, score=np.clip(found.score + favor * new, 0, 1).astype(np.float32))
        slates = run_local(self.stages[replica].rerank(asked, found, SLATE))
        self.slates.append((self.seconds, slates.item))
        if self.logged and self.seconds - self.read >= 1:
            self.tell()

    def tell(self) -> None:
        """Every replica reads the log, which lags 0.4 s behind."""
        self.read, cut = self.seconds, self.seconds - 0.4
        pacing = self.stages[0].rules.current.pacing
        while self.told < len(self.slates) and self.slates[self.told][0] < cut:
            self.counts = self.count(pacing, self.slates[self.told][1]) + (
                self.counts or ImpressionCounts.zero(len(pacing))
            )
            self.told += 1
        for each in self.stages if self.counts else ():
            each.rules.current.pacing.shared = SharedCounts(self.counts, np.full(len(pacing), 20_600), cut)

    def count(self, pacing: Pacing, item: np.ndarray) -> ImpressionCounts:
        seen = ShownSlates(item, np.full(len(item), MIDNIGHT), np.zeros(len(item), np.int8), None)
        return count_impressions(pacing.ruleset, seen, np.full(len(pacing), 20_600), pacing.since)

    def run(self, batches: int) -> list[float]:
        """Shares of new items so far, by hour. Half of the day's traffic comes in bursts of minutes."""
        bursts = self.rng.uniform(0, 86_400, 6)
        spread = self.rng.uniform(0, 86_400, batches // 2)
        late = self.rng.exponential(60, batches - len(spread))
        burst = np.clip(self.rng.choice(bursts, len(late)) + late, 0, 86_399)
        shares, hour = [], 1
        for second in np.sort(np.concatenate([spread, burst])):
            self.seconds = float(second)
            if second > hour * 3_600:
                shares.append(self.share())
                hour = int(second // 3_600) + 1
            favor = np.sin(2 * np.pi * second / 86_400)  # wanted in the morning, at the end of all lists in the evening
            self.serve(int(self.rng.choice(len(self.stages), p=self.parts())), favor)
        return [*shares, self.share()]

    def parts(self) -> np.ndarray:
        """Replicas are not equally busy."""
        weight = np.arange(len(self.stages), 0, -1.0)
        return weight / weight.sum()

    def share(self) -> float:
        item = np.concatenate([item for _, item in self.slates])
        return float((item[item != NONE] % 20 == 19).mean())


@pytest.mark.parametrize(("replicas", "logged"), [(1, True), (3, True), (3, False)])
def test_a_quota_of_eight_percent_is_kept_over_a_bursty_day(rng, replicas, logged):
    day = Day(rng, write_rule("new", "quota", items=NEW, share=0.08), replicas, logged)
    shares = day.run(700)
    assert abs(shares[-1] - 0.08) < 0.01
    assert all(abs(share - 0.08) < 0.01 for share in shares[3:])  # and not only at midnight


def test_without_the_quota_the_share_differs(rng):
    day = Day(rng, write_rule("none", "boost", items="item.year == 1900", factor=2), 1)
    shares = day.run(300)
    assert max(abs(share - 0.08) for share in shares) > 0.05
