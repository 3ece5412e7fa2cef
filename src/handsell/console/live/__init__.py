"""What the service reports about itself, followed while the console runs."""
