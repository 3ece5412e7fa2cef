"""The command line: one module per group of commands, put together in `app`."""

from handsell.cli.app import app, main

__all__ = ["app", "main"]
