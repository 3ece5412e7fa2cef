"""Rows of the tracks that are released during a simulation, as a catalog team would send them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from handsell.data.world.catalog import stream
from handsell.data.world.names import describe_mood, draw_artist_names, draw_track_titles, list_genres
from handsell.data.world.tables import format_item_ids
from handsell.simulation.population import Population


@dataclass(frozen=True)
class ReleasedItems:
    """Titles, artists and genres of a population's tracks."""

    population: Population
    artists: tuple[str, ...]
    titles: tuple[str, ...]  # of the released tracks

    @classmethod
    def of(cls, population: Population) -> ReleasedItems:
        world = population.world
        artists = draw_artist_names(world.artists, stream(world, "names"))
        count = len(population.tracks) - population.old_items
        return cls(population, tuple(artists), tuple(draw_track_titles(count, stream(world, "new titles"))))

    def build_rows(self, items: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return item id → columns of released tracks (N,) without hidden parameters, times in µs."""
        genres = list_genres(self.population.world.tags)
        return {
            item_id: self._build_row(item, genres)
            for item_id, item in zip(format_item_ids(items), items.tolist(), strict=True)
        }

    def _build_row(self, item: int, genres: list[str]) -> dict[str, Any]:
        tracks = self.population.tracks
        tags = [genres[tag] for tag in tracks.tags[item].tolist() if tag >= 0]
        artist, energy = self.artists[tracks.artist[item]], float(tracks.energy[item])
        mood = describe_mood(energy, float(tracks.acousticness[item]))
        published = int(tracks.published[item])
        return {
            "title": self.titles[item - self.population.old_items],
            "creators": [artist],
            "tags": tags,
            "text": f"{', '.join(tags)}; {mood}; by {artist}",
            "published_at": published,
            "energy": energy,
            "acousticness": float(tracks.acousticness[item]),
            "tempo": float(tracks.tempo[item]),
            "year": datetime.fromtimestamp(published / 1e6, UTC).year,
            "explicit": bool(tracks.explicit[item]),
        }
