"""Immutable, verified model bundles: manifest, store, promotion gate, and the stages loaded from a bundle."""
