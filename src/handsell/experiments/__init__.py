"""Experiments: assignment of units to arms, state while serving, analysis, off-policy evaluation."""
