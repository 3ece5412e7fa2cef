"""The command that simulates users."""

from __future__ import annotations

from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, ServiceUrl, load, load_on_cluster

NAMES = "popularity, retriever, funnel, exploration; also inverted (a planted mistake), random and oracle"


def simulate(
    config: ConfigPath,
    days: Annotated[int, typer.Option(min=1, help="Simulated days after the end of the log.")] = 30,
    users: Annotated[int, typer.Option(min=1, help="Listeners of the world; more join during the days.")] = 1_000,
    policies: Annotated[
        str, typer.Option(help=f"Policies in this process, separated by commas: {NAMES}.")
    ] = "popularity,retriever,funnel,exploration",
    retrain_every: Annotated[int, typer.Option(min=0, help="Days between trainings; 0: never.")] = 10,
    gate: Annotated[
        bool, typer.Option("--gate", help="Use a new bundle only if it passes the gate; by default, use every one.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the listeners' random numbers.")] = 0,
    served: Annotated[
        bool, typer.Option("--served", help="Let the population ask the running service instead.")
    ] = False,
    url: ServiceUrl = "",
) -> None:
    """Simulate a population with known tastes, day by day, with training in between, and compare policies."""
    loaded = load_on_cluster(config) if served or url else load(config)

    from handsell.local.simulation import SimulationOptions, simulate_policies, simulate_service

    options = SimulationOptions(days, users, seed, retrain_every, gate=gate)
    if served or url:
        simulate_service(loaded, options, url)
    else:
        names = [name.strip() for name in policies.split(",") if name.strip()]
        simulate_policies(loaded, options, names)
