"""Candidate generation: retrievers (models/), the vector index (index/), neural training (neural/), fusion.

`stage.py` runs the enabled retrievers and fuses their results; `registry.py` fits and loads retrievers by name.
"""
