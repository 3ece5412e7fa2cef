"""Which deployment these definitions are for: `$HANDSELL_CONFIG`, else that of the repository's feature_store.yaml."""

from pathlib import Path

import click
from feast import Project

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.features.repository import explain_mismatch, load_selected_config


def deployment() -> Config:
    """The config; ends a feast command whose feature_store.yaml belongs to another one."""
    command = click.get_current_context(silent=True)  # None where a test or a notebook imports these files
    repo = Path(command.obj["CHDIR"]) if command else Path(__file__).parent  # another one may import these files
    try:
        config = load_selected_config(repo)
        problem = explain_mismatch(config, repo, Path(command.obj["FS_YAML_FILE"])) if command else None
    except HandsellError as error:
        if command is None:
            raise
        problem = str(error)
    if problem:
        raise SystemExit(f"feast: {problem}")
    Layout(config.state).feast.mkdir(parents=True, exist_ok=True)  # Feast makes one level only
    return config


config = deployment()
layout = Layout(config.state)
project = Project(name=config.name, description=f"handsell deployment {config.source.name}")
