"""Commands for a whole deployment on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from handsell.cli.arguments import ConfigPath, DataPath, Topology, load

Template = Annotated[
    Literal["world", "own_data", "movielens"],
    typer.Option(help="world: synthetic data; own_data: your tables; movielens: downloads a small MovieLens."),
]


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the project: letters, digits and underscores.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
    template: Template = "world",
) -> None:
    """Write a new project: NAME.toml, feature_repo, Serve files, an overlay for Kubernetes, and a README."""
    from handsell.local.project.creation import create_project

    files = create_project(name, folder, template)
    print(f"wrote {len(files)} files to {folder.absolute()}: {name}.toml, feature_repo/, deployments/ and README.md")
    print(f"next: handsell {'doctor' if template == 'own_data' else 'up'} {folder / name}.toml")


def up(config: ConfigPath, data: DataPath = None, topology: Topology = "graph") -> None:
    """Do everything from source data to a running service on this machine, and show recommendations for one user."""
    from handsell.local.up import start_everything

    start_everything(load(config, data), topology)


def down(config: ConfigPath) -> None:
    """Stop the processes that `up` started, and no others."""
    from handsell.local.up import stop_everything

    stop_everything(load(config))


def env(config: ConfigPath) -> None:
    """Print shell exports that point the feast, ray and serve commands to this configuration and its cluster."""
    import shlex

    from handsell.features.repository import prepare_feast_environment
    from handsell.local import cluster

    loaded = load(config)
    exports, head = prepare_feast_environment(loaded), cluster.find_running(loaded)
    if head is None:
        print(f"no cluster of {loaded.name} is running: exports for feast only", file=sys.stderr)
    else:
        exports |= head.access
    for name, value in exports.items():
        print(f"export {name}={shlex.quote(value)}")
