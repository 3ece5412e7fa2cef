"""Child processes of `make up` that run commands."""
