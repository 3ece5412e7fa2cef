"""Commands for what users receive: the service, batch slates, and checks of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, ServiceUrl, Topology, load, load_on_cluster
from handsell.core.errors import HandsellError


def serve(config: ConfigPath, topology: Topology = "graph") -> None:
    """Deploy the live bundle on the local cluster, which is started if it does not run."""
    from handsell.bundles.opening import open_bundles
    from handsell.local import cluster, service
    from handsell.local.bundles import resolve_bundle
    from handsell.local.ownership import claim_state

    loaded = load(config)
    resolve_bundle(open_bundles(loaded), "live")  # raises before anything is started
    claim_state(loaded)
    head = cluster.find_running(loaded) or cluster.start(loaded)
    cluster.start_ingress(loaded, head)
    print(service.deploy(loaded, head, topology))
    print(service.wait_until_ready(loaded))
    print(service.wait_for_console(loaded))


def recommend(
    config: ConfigPath,
    user: Annotated[str, typer.Argument(metavar="USER", help="User id.")],
    count: Annotated[int, typer.Option(help="Number of items.")] = 10,
    surface: Annotated[str, typer.Option(help="Surface of the configuration, such as home.")] = "home",
    url: ServiceUrl = "",
) -> None:
    """Request recommendations for one user from the running service and print the response."""
    from urllib.parse import quote

    import httpx

    from handsell.local.service import open_client, service_url

    base = url or service_url(load(config))
    try:
        with open_client(base, is_local=not url) as client:
            response = client.get(
                f"/v1/users/{quote(user, safe='')}/recommendations", params={"count": count, "surface": surface}
            )
    except httpx.HTTPError as error:
        raise HandsellError(f"no service at {base} ({error}): start it with `handsell up {config}`") from None
    try:
        body = response.json()
    except ValueError:
        raise HandsellError(
            f"expected JSON from {base}, got status {response.status_code} with other content: "
            "check that handsell listens at this address"
        ) from None
    print(json.dumps(body, indent=2, ensure_ascii=False))
    if response.status_code >= 400:
        raise typer.Exit(1)


def batch(
    config: ConfigPath,
    surface: Annotated[str, typer.Option(help="Surface of the configuration, such as email.")],
    out: Annotated[Path, typer.Option(help="Output folder; a stopped run continues in the same folder.")],
    users_per_part: Annotated[int, typer.Option(min=1, max=10_000, help="Users per Parquet file.")] = 1_000,
    record: Annotated[
        bool, typer.Option(help="Log the slates as impressions, so that frequency caps and other surfaces count them.")
    ] = True,
) -> None:
    """Write recommendations for every user as Parquet, for e-mail and push messages."""
    loaded = load_on_cluster(config)

    from handsell.jobs.batch.batch_slates import batch as run
    from handsell.jobs.progress import report_result
    from handsell.storage.published_state import open_published_state

    open_published_state(loaded).pull()
    report_result(run(loaded, surface, out, users_per_part=users_per_part, record=record))


def skew(config: ConfigPath) -> None:
    """Compare logged feature vectors of served requests with point-in-time values."""
    loaded = load_on_cluster(config)

    from handsell.jobs.features.skew import report_skew
    from handsell.storage.published_state import open_published_state

    open_published_state(loaded).pull()
    report_skew(loaded)
