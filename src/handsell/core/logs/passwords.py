"""Passwords in addresses: of messages and log lines that quote an address, everybody may read the rest."""

from __future__ import annotations

import re

HIDDEN = "…"
ADDRESS = re.compile(r"(://)[^\s/@'\"]*:[^\s'\"]*@")  # an unencoded / or @ in a password, too: through the last @
OPTION = re.compile(r"(password|passwd|secret|token)(\s*[=:]\s*)[^\s,;&'\"]+", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """Replace user and password of addresses such as redis://user:password@host, and `password=…` options."""
    if "://" in text:
        text = ADDRESS.sub(rf"\1{HIDDEN}@", text)
    return OPTION.sub(rf"\1\2{HIDDEN}", text)
