"""Lists of compressed vectors in FAISS, which propose items: they are scored again from the vectors themselves."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from handsell.retrieval.index import packed_lists

Kind = Literal["ivf", "ivf_pq"]

SPARE = 16  # items proposed beyond those asked for, so that a tie at the cut is noticed
FILE, DESCRIPTION = "ivf.faiss", "index.json"


@dataclass(frozen=True)
class IndexSettings:
    """How far a search goes, and what it was measured to find."""

    k: int  # items asked for
    nprobe: int  # lists read
    shortlist: float  # items scored again, per item asked for
    recall: float  # share found of the exact k nearest, on queries other than those it was settings on
    stated: float  # the recall that it was settings to
    queries: str  # what those queries are


@dataclass(frozen=True)
class Approximate:
    kind: Kind
    lists: Any  # a FAISS IVF index whose ids are item numbers
    settings: IndexSettings

    def propose(self, query: np.ndarray, k: int, share: float, allowed: np.ndarray | None = None) -> np.ndarray:
        """(N,) ascending items: those among which the k best are looked for.

        `share` in (0, 1] is how much of the known items may be answered, so that the k nearest of these are about
        the k / share nearest of all. `allowed` (I,) bool keeps the search to them; without it the proposal holds
        others too, and is longer by as much.
        """
        faiss = load_faiss()
        only = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        wanted = k * self.settings.shortlist / (share if allowed is None else 1) + SPARE
        deeper = max(1.0, k / self.settings.k / share)  # neighbors to reach, per neighbor that it was settings for
        nprobe = min(math.ceil(self.settings.nprobe * math.sqrt(deeper)), self.lists.nlist)
        params = faiss.SearchParametersIVF(sel=only, nprobe=nprobe)
        _, item = self.lists.search(query[None], min(math.ceil(wanted), self.lists.ntotal), params=params)
        return np.sort(item[0][item[0] >= 0])

    def describe(self) -> dict[str, Any]:
        """What index.json says."""
        return {"kind": self.kind, "lists": self.lists.nlist, **asdict(self.settings)}

    def save(self, path: Path) -> None:
        faiss = load_faiss()
        if self.kind == "ivf_pq":
            packed_lists.save_lists(self.lists, path)
        else:
            faiss.write_index(self.lists, str(path / FILE))

    @classmethod
    def load(cls, path: Path, about: dict[str, Any]) -> Approximate:
        """Memory mapped: replicas on one machine share the pages."""
        faiss = load_faiss()
        if about["kind"] == "ivf_pq" and not (path / FILE).exists():  # bundles of 0.1 may have the lists inside
            lists = packed_lists.load_lists(path)
        else:
            lists = faiss.read_index(str(path / FILE), faiss.IO_FLAG_MMAP_IFC)
        return cls(
            about["kind"], lists, IndexSettings(**{name: about[name] for name in IndexSettings.__dataclass_fields__})
        )


def read_description(path: Path) -> dict[str, Any]:
    """The index.json of a saved index."""
    return json.loads((path / DESCRIPTION).read_text())


def load_faiss() -> Any:
    """FAISS, held to one thread in the thread that calls it; imported only where it is used."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
