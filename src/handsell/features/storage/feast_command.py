"""The `feast` command without the slow parts of its import, which feast_import.py describes."""

from __future__ import annotations

# before the other imports of Feast
from handsell.features.feast_import import feast  # isort: skip # noqa: F401

from feast.cli.cli import cli

if __name__ == "__main__":
    cli(prog_name="feast")
