"""Readers of known formats: each turns one layout of source data into canonical events, items and users."""
