"""Serving: latency and throughput of the service, its layouts, its processes and the load generator."""
