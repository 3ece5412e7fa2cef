"""The stages of an opened bundle, as each deployment holds them."""

from __future__ import annotations

from handsell.bundles.stages import load_candidates, load_ranking
from handsell.core.paths import Layout
from handsell.core.protocols import RankingStage
from handsell.eligibility.mask import Eligibility
from handsell.features.served_log import FEATURE_LOG
from handsell.ranking.stage import LocalRanking
from handsell.reranking.new_items import watch_new_items
from handsell.reranking.rules.live_rules import watch_rules
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.loading import OpenedBundle
from handsell.serving.graph.stages import LocalStages
from handsell.serving.graph.warm_up import warm_up
from handsell.serving.live.live_stages import LiveStages
from handsell.serving.telemetry.feature_log import FeatureLog, LoggedRanking


def load_candidate_stage(opened: OpenedBundle) -> LocalStages:
    return LocalStages(candidates=load_candidates(opened.path, opened.config, opened.snapshot))


def load_ranking_stage(opened: OpenedBundle) -> LocalStages:
    return LocalStages(ranking=_with_log(load_ranking(opened.path, opened.config, opened.snapshot), opened))


def load_reranking_stage(opened: OpenedBundle) -> LocalStages:
    """Re-ranking with the deployment's business rules, reloaded when their file changes; raises ConfigError."""
    eligibility = Eligibility.of(opened.snapshot, opened.config)
    rules = watch_rules(opened.snapshot, eligibility, opened.config)
    new_items = watch_new_items(opened.config, opened.snapshot)
    stage = LocalReranking(opened.snapshot, eligibility, opened.config, rules=rules, new_items=new_items)
    return LocalStages(reranking=stage)


def load_all_stages(opened: OpenedBundle) -> LocalStages:
    candidates, ranking, reranking = (
        load(opened) for load in (load_candidate_stage, load_ranking_stage, load_reranking_stage)
    )
    return LocalStages(candidates.candidates, ranking.ranking, reranking.reranking)


def load_local_stages(opened: OpenedBundle) -> LiveStages:
    """All three stages in this process, after their warm-up, on the live catalog."""
    return LiveStages(warm_up(load_all_stages(opened), opened), opened.live, opened.config)


def _with_log(ranking: RankingStage, opened: OpenedBundle) -> RankingStage:
    """The stage with a log of sampled feature vectors, where the config samples any."""
    if not opened.config.serving.feature_log_share or not isinstance(ranking, LocalRanking):
        return ranking
    log = FeatureLog(Layout(opened.config.state).logs / FEATURE_LOG, opened.manifest.id)
    return LoggedRanking.of(ranking, log)
