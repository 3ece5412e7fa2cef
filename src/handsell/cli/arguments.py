"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from handsell.config import Config

ConfigPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="Configuration file (TOML); `handsell init` writes one.")
]
DataPath = Annotated[
    str | None,
    typer.Option("--data", help="Folder or URI of the source data; overrides data.path in the configuration."),
]
Topology = Annotated[
    Literal["graph", "fused"],
    typer.Option(help="graph: each stage is a deployment that scales on its own; fused: all stages in one deployment."),
]
BundleName = Annotated[str, typer.Option(help="Bundle id, or live, or latest.")]
ServiceUrl = Annotated[str, typer.Option(help="Base URL of the service; by default the address in the configuration.")]


def load(path: Path, data: str | None = None) -> Config:
    """Read the configuration; `data` replaces its data folder, in this process and in those that it starts.

    Raises ConfigError if another config of the same name owns the state folder.
    """
    import os

    from handsell.config import load_config
    from handsell.config.locations import expand_path
    from handsell.core.paths import is_uri
    from handsell.local.ownership import require_owner

    if data is not None:
        os.environ["HANDSELL_DATA"] = data
    for name in ("HANDSELL_HOME", "HANDSELL_DATA"):  # absolute: other processes have other working directories
        value = os.environ.get(name)
        if value and not (name == "HANDSELL_DATA" and is_uri(value)):
            os.environ[name] = str(expand_path(value, name))
    config = load_config(path)
    require_owner(config)
    return config


def load_on_cluster(path: Path, data: str | None = None) -> Config:
    """Read the configuration, and select its running cluster for the jobs of this process.

    Without a running cluster a job starts a private one. An address that is already in the environment is kept. Call it
    before anything imports Ray, which reads some of these variables at import.
    """
    import os

    from handsell.local import cluster

    config = load(path, data)
    if not os.environ.get("RAY_ADDRESS") and (head := cluster.find_running(config)):
        os.environ.update(head.environment)
    return config
