"""A deployment over many days of traffic, with retention."""
