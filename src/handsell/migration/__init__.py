"""Data of other recommenders: read what they export, and write tables and a config for handsell."""
