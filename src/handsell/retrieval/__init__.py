"""Candidate sources: one file per retriever family, the index they share, and the union of what they return.

`registry.py` names them all; `stage.py` is what the funnel calls.
"""
