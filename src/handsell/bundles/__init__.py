"""Immutable, verified model bundles: manifest, store, the promotion gate, and assembly into stages."""
