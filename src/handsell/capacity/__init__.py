"""Sizes of a deployment for a given load, from figures that were measured."""
