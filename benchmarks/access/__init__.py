"""Access to the HTTP API."""
