"""Object storage of a deployment: `[storage]`."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from handsell.core.section import Section

STORAGE_VARIABLE = "HANDSELL_STORAGE"  # overrides storage.uri
NO_STORAGE = "none"  # its value for everything in the state folder
SCHEMES = ("s3", "gs", "az")
URI = re.compile(rf"^({'|'.join(SCHEMES)})://[^/?#\s]+(/[^?#\s]*)?$")


def check_storage_uri(uri: str) -> str:
    """Return the URI without a slash at its end; raises ValueError for one that names no bucket of a known scheme."""
    if not URI.match(uri):
        raise ValueError(f"expected a bucket and a folder, such as s3://bucket/handsell (or gs://, az://), got {uri!r}")
    return uri.rstrip("/")


class StorageConfig(Section):
    """Where bundles and training data are published, so that pods and machines need no shared folder."""

    uri: str | None = Field(
        None,
        description="folder in object storage, such as s3://bucket/handsell (also gs:// and az://; "
        "`pip install 'handsell[storage]'`); each deployment "
        "uses the folder of its name below it. $HANDSELL_STORAGE overrides it, with `none`, too. None: everything is "
        "in the state folder",
    )

    @field_validator("uri")
    @classmethod
    def _is_uri(cls, uri: str | None) -> str | None:
        return None if uri is None else check_storage_uri(uri)
