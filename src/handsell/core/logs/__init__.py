"""Log lines: their format, the requests they are about, and the ids in them."""
