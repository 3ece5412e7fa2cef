"""The limit of the funnel's compute, and the cost of its stages beside it."""
