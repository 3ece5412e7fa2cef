"""The stream processor: keeps the online rows of users up to date with the event store."""
