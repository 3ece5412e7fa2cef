"""The event log, user state folded from it, and exclusions by user."""
