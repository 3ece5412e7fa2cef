"""Data of the pages Catalog and Rules: the items that the service has now, their words, exposure and rules."""
