"""Alembic's revisions of the event store's tables, the same for SQLite and PostgreSQL."""
