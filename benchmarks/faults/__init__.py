"""Faults: what clients see when a part of the serving graph fails under load."""
