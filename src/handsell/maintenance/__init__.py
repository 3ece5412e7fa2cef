"""What keeps a deployment small and safe: retention, backup and restore, and the measures of both."""
