"""Commands for a whole deployment on this machine."""

from __future__ import annotations

import sys

from handsell.cli.arguments import ConfigPath, DataPath, Topology, load


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
