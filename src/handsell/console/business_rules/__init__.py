"""Data of the page Rules: the served rules in words, drafts, their preview, publication."""
