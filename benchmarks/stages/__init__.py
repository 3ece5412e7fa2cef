"""Stages: the cost of single stages on synthetic data, without a service."""
