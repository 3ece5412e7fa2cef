"""Approximate search: an inverted file of compressed vectors in FAISS proposes items to be scored exactly."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handsell.retrieval.index import packed_lists

Kind = Literal["ivf", "ivf_pq"]

SPARE = 16  # items proposed beyond those requested, so that ties at the cut are found
FILE, DESCRIPTION = "ivf.faiss", "index.json"


@dataclass(frozen=True)
class IndexSettings:
    """Search effort, and the recall measured with it."""

    k: int  # items requested
    nprobe: int  # lists read
    shortlist: float  # items scored exactly, per requested item
    recall: float  # share found of the exact k nearest, on queries not used in tuning
    stated: float  # the recall to which it was tuned
    queries: str  # the kind of queries: "users" or "items"


@dataclass(frozen=True)
class Approximate:
    kind: Kind
    lists: Any  # a FAISS IVF index whose ids are item numbers
    settings: IndexSettings

    def propose(self, query: np.ndarray, k: int, share: float, allowed: np.ndarray | None = None) -> np.ndarray:
        """Return items (N,), ascending, that contain about the k nearest eligible ones.

        `share` in (0, 1] is the share of known items that are eligible: the k nearest of these are about the k / share
        nearest of all. `allowed` (I,) bool restricts the search; without it the result contains other items, too, and
        is longer accordingly.
        """
        faiss = load_faiss()
        only = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        wanted = k * self.settings.shortlist / (share if allowed is None else 1) + SPARE
        deeper = max(1.0, k / self.settings.k / share)  # nearest items needed, relative to tuning
        nprobe = min(math.ceil(self.settings.nprobe * math.sqrt(deeper)), self.lists.nlist)
        params = faiss.SearchParametersIVF(sel=only, nprobe=nprobe)
        _, item = self.lists.search(query[None], min(math.ceil(wanted), self.lists.ntotal), params=params)
        return np.sort(item[0][item[0] >= 0])

    def describe(self) -> dict[str, Any]:
        """Return the content of index.json."""
        return {"kind": self.kind, "lists": self.lists.nlist, **asdict(self.settings)}

    def save(self, path: Path) -> None:
        faiss = load_faiss()
        if self.kind == "ivf_pq":
            packed_lists.save_lists(self.lists, path)
        else:
            faiss.write_index(self.lists, str(path / FILE))

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Approximate:
        """Load memory mapped: replicas on one machine share the pages."""
        faiss = load_faiss()
        if (
            about["kind"] == "ivf_pq" and not (path / FILE).exists()
        ):  # some bundles of version 0.1 have the lists inside
            lists = packed_lists.load_lists(path)
        else:
            lists = faiss.read_index(str(path / FILE), faiss.IO_FLAG_MMAP_IFC)
        return cls(
            about["kind"], lists, IndexSettings(**{name: about[name] for name in IndexSettings.__dataclass_fields__})
        )


def read_description(path: Path) -> dict[str, Any]:
    """Read the index.json of a saved index."""
    return json.loads((path / DESCRIPTION).read_text())


def load_faiss() -> Any:
    """Import FAISS, limited to one thread in the calling thread; slow to import, and exact indexes do not need it."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
