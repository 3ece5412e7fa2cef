"""Onboarding over HTTP: which items to ask a new user about."""
