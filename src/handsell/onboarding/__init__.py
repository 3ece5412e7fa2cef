"""Onboarding: the items whose answers teach most about a new user."""
