"""Simulation: policies over weeks of a population with known tastes."""
