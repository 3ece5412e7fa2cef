"""Permanent numbers of items, users, creators and tags, and the item snapshot for serving."""
