"""All pages, in the order of the menu. A page is a module that defines a ConsolePage."""

from __future__ import annotations

from handsell.console.page import ConsolePage
from handsell.console.pages import catalog, experiments, explore, operations, quality, rules

PAGES: tuple[ConsolePage, ...] = (
    explore.PAGE, catalog.PAGE, quality.PAGE, experiments.PAGE, rules.PAGE, operations.PAGE
)  # fmt: skip
