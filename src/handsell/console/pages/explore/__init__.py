"""The page Explore: what a person gets, side by side with something else, and why."""

from handsell.console.pages.explore.routes import PAGE

__all__ = ["PAGE"]
