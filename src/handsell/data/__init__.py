"""Source data: readers, checks, numbering, windows, and the synthetic world."""
