"""Processes that this one starts."""
