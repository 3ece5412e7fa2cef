"""The event store: events, served slates, catalog changes, blocks, identities, erasures, positions of followers."""
