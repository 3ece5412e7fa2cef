"""Slates as somebody else would get them: with another bundle, arm or setting, after events that are only imagined."""
