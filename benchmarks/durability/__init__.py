"""Durability: what was acknowledged survives kill -9 of every part, and counts once."""
