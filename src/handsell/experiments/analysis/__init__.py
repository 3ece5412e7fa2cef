"""Analysis of experiments: outcomes per unit, tests, always-valid effects, plans."""
