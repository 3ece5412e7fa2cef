"""Gorse: its exports and dumps, and how its items, users and feedback are stored here."""
