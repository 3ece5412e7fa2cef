"""Training compares the ranker with the fused order on requests of users without events."""

import numpy as np

from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.evaluation.metrics import Relevant
from handsell.features.views import list_service_columns
from handsell.jobs.train.training_run import SERVICE
from handsell.jobs.tuning.new_users import forget_all_but
from handsell.jobs.tuning.order_selection import measure_gain
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

CONFIG = Config(name="test")


class Reversed:
    """A ranking stage that prefers the last candidates."""

    async def rank(self, requests, candidates, k):
        return candidates.reorder(np.tile(np.arange(candidates.item.shape[1])[::-1], (len(requests), 1))[:, :k])


def test_the_gain_is_positive_where_the_ranker_finds_what_the_fused_order_does_not():
    rng = np.random.default_rng(0)
    snapshot = draw_snapshot(rng)
    requests, found = draw_requests(rng, snapshot, 5), draw_candidates(rng, snapshot, 5, 40)
    gains = []
    for place in (0, -1):
        rows = Ragged.from_rows(found.item[:, [place]])
        relevant = Relevant(rows, Ragged(np.ones(5, np.float32), rows.offsets))
        gains.append(measure_gain(requests, relevant, found, Reversed()))
    assert gains == [-5, 5]


def test_a_new_user_keeps_the_newest_events_and_sees_nothing_that_the_user_has_seen():
    rng = np.random.default_rng(1)
    snapshot = draw_snapshot(rng)
    asked = draw_requests(rng, snapshot, 5)
    columns = tuple(list_service_columns(CONFIG, SERVICE))
    for events in (0, 2):
        requests = forget_all_but(asked, events, columns, snapshot, CONFIG)
        assert (requests.user == NONE).all()
        for b in range(5):
            past = asked.history.item[b][asked.history.item[b] != NONE]
            kept = requests.history.item[b][requests.history.item[b] != NONE]
            assert kept.tolist() == past[len(past) - events :].tolist()
            assert set(past.tolist()) == set(requests.exclude.row(b).tolist())
