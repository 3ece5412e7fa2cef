"""Servers that tests need: without one, a test is skipped, or fails where CI must have them all."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def report_missing(message: str) -> NoReturn:
    """Skip the test, or fail it under HANDSELL_TEST_SERVERS=required."""
    if os.environ.get("HANDSELL_TEST_SERVERS") == "required":
        pytest.fail(message)
    pytest.skip(message)
