"""Repeatable measurements. `python -m benchmarks --help` lists them; each folder holds one kind."""
