"""Exploration, fatigue and onboarding on the simulated population."""
