"""The web console: pages that show what the service recommends and why, and change it."""
