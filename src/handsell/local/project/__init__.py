"""A new project: the files that `handsell init` writes."""
