"""Shared by all stages: batches, stage protocols, the funnel, plug-ins and errors."""
