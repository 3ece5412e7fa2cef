"""The closed loop: day by day, visits are answered with slates, listeners react, and the policy learns from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handsell.simulation.behavior import Responses, respond
from handsell.simulation.organic import listen_organically
from handsell.simulation.policies import Policy
from handsell.simulation.population import Population
from handsell.simulation.population_state import PopulationState
from handsell.simulation.trace import Trace
from handsell.simulation.visits import iterate_visits

SLATE = 10


def simulate_days(
    population: Population,
    state: PopulationState,
    policy: Policy,
    n: int = SLATE,
    report: Callable[[int, Sequence[Responses]], None] = lambda day, responses: None,
) -> Trace:
    """Simulate all days of a population with one policy; `report` is called after each day with its responses."""
    parts: list[Trace] = []
    for day in range(population.days):
        first = len(parts)
        for visits in iterate_visits(population, state, day):
            shown = policy.recommend(visits, n)
            responses = respond(population, state, visits, shown.item)
            policy.observe(visits, shown, responses, listen_organically(population, state, visits, responses))
            parts.append(Trace.of(visits, shown, responses))
        policy.end_day(day)
        report(day, [part.responses for part in parts[first:]])
    return Trace.concatenate(parts)
