"""The web console: its pages, and what they cost the service."""
