"""handsell's application for `serve deploy`, with the feature rows of tests/serving_world.py."""

# no `from __future__ import annotations`: Serve reads the argument's class from the signature of `build`
from ray.serve import Application

from handsell.serving.http.app import AppArgs, compose
from serving_world import open_rows


def build(args: AppArgs) -> Application:
    return compose(args, open_rows)
