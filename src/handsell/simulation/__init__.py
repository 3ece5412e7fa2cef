"""Simulated users whose true preferences are known, and the closed loop of slates, reactions, events and training."""
