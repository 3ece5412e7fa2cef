"""Simulated days on a trained deployment: the comparison notices planted mistakes, and training closes the loop."""

import numpy as np
import pytest

from handsell.bundles.store import BundleStore
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.jobs.pipeline import run_pipeline
from handsell.simulation.closed_loop import simulate_days
from handsell.simulation.deployed_policy import DeployedPolicy, with_exploration
from handsell.simulation.log_listens import draw_log_listens
from handsell.simulation.outcomes import compare_outcomes, compute_outcomes
from handsell.simulation.policies import OraclePolicy, RandomPolicy
from handsell.simulation.population import build_population
from handsell.simulation.population_state import PopulationState

pytestmark = pytest.mark.slow
DAYS = 3


@pytest.fixture(scope="module")
def population(deployment):
    return build_population(deployment.config.data.world, days=DAYS, seed=4, new_items_per_day=5)


@pytest.fixture(scope="module")
def log(deployment):
    world = deployment.config.data.world
    return draw_log_listens(world, world.users)


@pytest.fixture(scope="module")
def simulate(deployment, population, log, tmp_path_factory):
    """Simulate one kind of policy on a copy of the deployment; return policy and trace."""

    def run(kind, change=lambda config: config, retrain=run_pipeline, every=0):
        copied = deployment.copy(tmp_path_factory.mktemp(kind))
        policy = DeployedPolicy(change(copied.config), population, kind, retrain, every)
        return policy, simulate_days(population, PopulationState.start(population, log), policy)

    return run


@pytest.fixture(scope="module")
def funnel(simulate):
    return simulate("funnel")


def bound(population, log, make):
    state = PopulationState.start(population, log)
    return compute_outcomes(population, simulate_days(population, state, make(state)))


def test_the_comparison_notices_an_inverted_ranker_and_random_slates(simulate, funnel, population, log):
    found = {
        "funnel": compute_outcomes(population, funnel[1]),
        "inverted": compute_outcomes(population, simulate("inverted")[1]),
        "random": bound(population, log, lambda _: RandomPolicy(population)),
        "oracle": bound(population, log, lambda state: OraclePolicy(population, state)),
    }
    compared = compare_outcomes(found, "funnel")
    for figure in ("satisfaction", "value"):
        assert compared[figure, "inverted"].outcome == "beats"
        assert compared[figure, "random"].outcome == "beats"
        assert compared[figure, "oracle"].outcome == "loses"


def test_the_funnel_satisfies_more_than_popularity(simulate, funnel, population):
    policy, trace = simulate("popularity")
    found = {"funnel": compute_outcomes(population, funnel[1]), "popularity": compute_outcomes(population, trace)}
    assert compare_outcomes(found, "funnel")["satisfaction", "popularity"].outcome == "beats"
    assert policy.find_best_retriever() in policy.bundle.stages.candidates.sources


def test_the_same_seed_gives_the_same_days(simulate, funnel):
    _, again = simulate("funnel")
    np.testing.assert_array_equal(again.responses.item, funnel[1].responses.item)
    np.testing.assert_array_equal(again.responses.played, funnel[1].responses.played)


def test_exploration_is_logged_with_its_chance_and_gives_new_tracks_a_start(simulate, funnel, population):
    def change(config):
        """Explore tracks of the last two days, with so many candidates that none is cut before ranking."""
        every = config.retrieval.model_copy(update={"candidates": 420})
        explores = with_exploration(config.model_copy(update={"retrieval": every}), 0.5, 0.2)
        exploration = explores.reranking.exploration
        new = exploration.model_copy(update={"new_items": exploration.new_items.model_copy(update={"days": 2.0})})
        return explores.model_copy(update={"reranking": explores.reranking.model_copy(update={"exploration": new})})

    policy, trace = simulate("funnel", change)
    assert (trace.propensity < 1).any() and (funnel[1].propensity == 1).all()
    new = [(one.responses.item >= population.old_items).mean() for one in (trace, funnel[1])]
    assert new[0] > new[1] + 0.01
    reader = open_reader(policy.config)
    logged = reader.read_impressions(0, 10_000)
    reader.close()
    shown = trace.responses.item >= 0
    assert sorted(logged["propensity"]) == pytest.approx(sorted(trace.propensity[shown].tolist()))


def test_what_the_population_did_trains_the_next_bundle(simulate, deployment, population):
    policy, trace = simulate("funnel", retrain=lambda config: run_pipeline(config), every=2)
    assert len(policy.notes) == 1 and policy.notes[0].startswith("after day 2: ")
    bundles = BundleStore(Layout(policy.config.state).bundles)
    newest = bundles.list()[-1]
    assert newest != deployment.bundle
    meta = read_json(Layout(policy.config.state).data_meta, "")
    first_days = trace.take(trace.visits.day < 2)
    listened = first_days.responses.listened.sum()
    assert meta["origins"]["event_store"] > listened > 100
    joined = set(first_days.visits.user[first_days.visits.row >= population.old_users].tolist())
    known = policy.bundle.users.ids(np.arange(len(policy.bundle.users)))
    assert joined and {f"u{number:07d}" for number in joined} <= set(known)
