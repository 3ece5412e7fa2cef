"""`handsell ope`: what a candidate would have earned, from logged slates."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from handsell.cli.arguments import ConfigPath, load


def ope(
    config: ConfigPath,
    candidate: Annotated[
        str,
        typer.Option(
            help="Bundle id, live, latest, a TOML file of changed settings (the keys of an experiment's arm), or "
            "EXPERIMENT.ARM of the configuration."
        ),
    ],
    surface: Annotated[str, typer.Option(help="Surface whose slates are used.")] = "home",
    metric: Annotated[
        list[str] | None, typer.Option(help="Event type that counts as success; by default those of positive weight.")
    ] = None,
    log: Annotated[
        Literal["served", "tables"],
        typer.Option(help="served: slates of this service; tables: impressions of the source tables."),
    ] = "served",
    slates: Annotated[int, typer.Option(min=1, max=1_000_000, help="Use at most this many slates.")] = 2_000,
    draws: Annotated[
        int, typer.Option(min=1, max=256, help="Slates drawn per request, of a bundle that explores.")
    ] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Estimate what a candidate would have earned on logged slates, before it is shown to anybody.

    Exit status 1 if the log cannot speak about whole slates of the candidate.
    """
    from rich.console import Console

    from handsell.events.store.opening import open_reader
    from handsell.experiments.off_policy.candidate import load_candidate
    from handsell.experiments.off_policy.evaluation import Question, evaluate_candidate
    from handsell.experiments.off_policy.value_tables import print_value
    from handsell.storage.published_state import open_published_state

    loaded = load(config)
    open_published_state(loaded).pull()
    policy = load_candidate(loaded, candidate, surface)
    question = Question(surface, tuple(metric or ()), log, slates, draws)
    reader = open_reader(loaded)
    try:
        with Console(stderr=True).status("reading the log") as status:
            value = evaluate_candidate(loaded, policy, question, reader, status.update).as_dict()
    finally:
        reader.close()
    if as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        print_value(value, Console())
    if value["refusal"]:
        raise typer.Exit(1)
