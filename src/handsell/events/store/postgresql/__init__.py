"""The event store in PostgreSQL; needs the extra `postgres`."""
