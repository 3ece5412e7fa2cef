"""Training of the ranking transformer with torch, which replicas do not import."""
