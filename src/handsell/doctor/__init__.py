"""The data doctor: checks of the source data before training."""
