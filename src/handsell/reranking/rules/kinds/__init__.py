"""Built-in rule kinds, one module each."""
