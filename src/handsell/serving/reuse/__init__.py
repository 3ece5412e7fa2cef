"""Answers that may be given again, because nothing that they depend on has changed."""
