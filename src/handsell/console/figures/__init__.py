"""What pages show, as plain data: computed from metrics, reports and results, in words for product managers."""
