"""From any source to canonical events, items and users."""
