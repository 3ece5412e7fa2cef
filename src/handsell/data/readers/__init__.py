"""Readers: each converts one format of source data to canonical events, items and users."""
