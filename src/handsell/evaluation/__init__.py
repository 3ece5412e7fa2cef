"""Offline evaluation: replay of requests, metrics, paired intervals, baselines, the report."""
