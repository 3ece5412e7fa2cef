"""Calls of stages over sockets of their replicas, beside Ray Serve, which starts, routes, scales and replaces them."""
