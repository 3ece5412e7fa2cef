"""Sizes of a deployment, before it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plan(
    qps: Annotated[float, typer.Option(help="Requests per second at peak.")],
    users: Annotated[int, typer.Option(help="Users with stored features.")],
    items: Annotated[int, typer.Option(help="Items of the catalog.")],
    p99_ms: Annotated[float, typer.Option(help="Latency that 99 % of the answers must keep.")],
    calibration: Annotated[
        Path, typer.Option(help="File of `python -m benchmarks capacity`, measured on a machine of yours.")
    ],
    events_per_day: Annotated[
        float | None, typer.Option(help="Events that clients send; by default one for each request.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for a kustomize overlay with these sizes.")] = None,
    base: Annotated[Path, typer.Option(help="The manifests that the overlay changes.")] = Path(
        "deployments/kuberay/base"
    ),
) -> None:
    """Plan replicas, processors, memory and stores for a load from measured costs, and show the arithmetic."""
    from handsell.capacity.calibration import read_calibration
    from handsell.capacity.overlay import write_overlay
    from handsell.capacity.plan import Wanted, make_plan

    made = make_plan(Wanted(qps, users, items, p99_ms, events_per_day), read_calibration(calibration))
    print("\n".join(made.lines))
    if out is not None:
        print(f"overlay: {write_overlay(made, base, out)}")
