"""Metrics of relevance and of the whole list, offline replay, paired intervals, the report."""
