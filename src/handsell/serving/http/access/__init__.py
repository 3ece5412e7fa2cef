"""Access to the HTTP API: origins, keys, scopes, limits and security headers."""
