"""Measurements that anyone can repeat: `python -m benchmarks` lists and runs them."""
