"""JSON files of the state folder, which a crash or a full disk may have left empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handsell.core.errors import HandsellError


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object; raises HandsellError with the remedy if the file is missing, empty or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
        cause = f"holds a {type(value).__name__}"
    except OSError as error:
        cause = error.strerror or "unreadable"
    except ValueError:
        cause = "empty or damaged"
    raise HandsellError(f"expected a JSON object in {path}, which is unusable ({cause}): {remedy}")
