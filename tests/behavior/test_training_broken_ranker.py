"""A failed ranker is named in every response; a fallback does not hide it."""

from dataclasses import replace

import numpy as np

from handsell.bundles.stages import load_stages
from handsell.serving.graph.stages import LocalStages
from serving_service import start_service


class Silent:
    """A ranker without finite scores."""

    def __init__(self, features):
        self.features = features

    def score(self, x):
        return np.full(x.shape[:2], np.nan, np.float32)


async def degraded(deployment, ranking=None):
    """Return the `degraded` causes of ten users' responses."""
    stages = load_stages(deployment.path, deployment.config)
    local = LocalStages(stages.candidates, ranking(stages.ranking) if ranking else stages.ranking, stages.reranking)
    async with start_service(deployment, stages=local) as (client, _):
        answers = [(await client.get(f"/v1/users/u{n:07d}/recommendations")).json() for n in range(10)]
        assert all(len(answer["items"]) == 10 for answer in answers)
        metrics = (await client.get("/metrics")).text
    causes = {cause for answer in answers for cause in answer["degraded"]}
    count = sum(bool(answer["degraded"]) for answer in answers)
    assert (f'handsell_degraded_total{{cause="ranking"}} {count}.0' in metrics) == bool(count)
    return count, causes


async def test_a_valid_ranker_is_not_degraded(deployment):
    assert await degraded(deployment) == (0, set())


async def test_a_ranker_of_other_features_is_named(deployment):
    def other(ranking):
        features = (*ranking.ranker.features[:-1], "item_moon_phase")
        return replace(ranking, ranker=replace(ranking.ranker, features=features))

    assert await degraded(deployment, other) == (10, {"ranking"})


async def test_a_ranker_without_scores_is_named(deployment):
    assert await degraded(deployment, lambda r: replace(r, ranker=Silent(r.ranker.features))) == (10, {"ranking"})
