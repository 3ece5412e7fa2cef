"""Parts of the feature store: the registry, the online rows of users and who may write them, and their updates."""
