"""The embedded default: one machine, one command from nothing to a served recommendation."""
