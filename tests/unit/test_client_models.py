"""The clients' types and methods are those of the OpenAPI document."""

import sys
from pathlib import Path

import pytest

from handsell.serving.http.access.route_scopes import ROUTE_SCOPES

sys.path.append(str(Path(__file__).parents[2] / "clients"))
import make_models


@pytest.fixture(scope="module")
def files():
    return make_models.render_files()


def test_the_files_are_what_the_document_says(files):
    stale = [path.name for path, text in files.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run python clients/make_models.py"


def test_every_route_has_a_method():
    """A route whose path has an id is the short form of one that takes the id in the query.

    Events go through EventSender, and those of User Behavior Insights come from programs that write them already.
    """
    paths = {path for _, path in make_models.METHODS.values()} | {"/v1/events", "/v1/ubi_events"}
    assert {path for path in ROUTE_SCOPES if "{" not in path} <= paths
