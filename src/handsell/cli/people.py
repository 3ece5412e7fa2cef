"""Commands about the people in the data."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, load, load_on_cluster


def erase(
    config: ConfigPath,
    user_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the user.")] = None,
    verify: Annotated[
        str | None, typer.Option(metavar="ID", help="Search everywhere for this id instead, and list each place.")
    ] = None,
) -> None:
    """Remove a person from the event store, the online features and every file; without an id, finish earlier erasures.

    The next training replaces the models that were fitted with the person's events.
    """
    if (verify is None) == (user_id is None) and verify is not None:
        raise typer.BadParameter("expected an id to erase, or --verify with an id, got both")
    if verify is not None:
        _verify(config, verify)
        return
    loaded = load_on_cluster(config)

    from handsell.events.store.opening import has_one_writer
    from handsell.jobs.audited_command import audit_command, hash_user
    from handsell.jobs.cluster import connect
    from handsell.jobs.erasure.erase import erase as run
    from handsell.jobs.erasure.erase import resume
    from handsell.jobs.progress import report_error, report_result, report_update

    through_service = os.environ.get("RAY_ADDRESS") and has_one_writer(loaded)
    about = "recorded erasures" if user_id is None else hash_user(loaded, user_id)
    with connect(loaded.jobs.num_cpus) if through_service else nullcontext(), audit_command(loaded, "erase", about):
        outcome = resume(loaded, report_update) if user_id is None else run(loaded, user_id, report_update)
    (report_result if outcome.finished else report_error)(outcome.to_text())
    if not outcome.finished:
        raise typer.Exit(1)


def _verify(config: ConfigPath, user_id: str) -> None:
    loaded = load(config)

    from handsell.jobs.erasure.person import Person
    from handsell.jobs.erasure.places import fetch_published
    from handsell.jobs.erasure.search import search, search_sources
    from handsell.jobs.progress import report_error, report_result

    fetch_published(loaded)
    person, clean = Person((user_id,)), True
    for place in (*search(loaded, person), search_sources(loaded, person)):
        clean &= place.is_clean
        line = f"{place.found:>6} in {place.searched:,} {place.unit}  {place.name}"
        print(line + (f"  ({place.note})" if place.note else ""))
        for detail in (*place.where, *(f"unreadable: {text}" for text in place.unreadable)):
            print(f"       {detail}")
    if not clean:
        report_error(f"user {user_id!r} is still in the places above: run `handsell erase {config} ID` again")
        raise typer.Exit(1)
    report_result(f"nothing of user {user_id!r} is left")
