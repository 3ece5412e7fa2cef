"""Draw tracks from known mixtures, with the exact probability of each track.

A mixture has five parts: popular, uniform, by artist, by tag, again (a track heard before). `share` is the probability
of each part. All parts draw released tracks only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.data.world.catalog import Catalog, Groups
from handsell.data.world.listen_history import RecentListens, sum_matches

POPULAR, UNIFORM, ARTIST, TAG, AGAIN = range(5)


@dataclass(frozen=True)
class Mixture:
    """Mixtures of B listeners; a part that cannot draw any track gives its share to `popular`."""

    tracks: Catalog
    released: np.ndarray  # (B,) number of released tracks
    recent: np.ndarray  # (B,) first track that `uniform` draws; 0: all tracks
    listens: RecentListens  # (B, H)
    tag_chance: np.ndarray  # (B, T) float, rows sum to 1 or are all 0
    share: np.ndarray  # (B, 5) float, rows sum to 1

    @classmethod
    def of(
        cls,
        tracks: Catalog,
        released: np.ndarray,
        recent: np.ndarray,
        listens: RecentListens,
        tag_chance: np.ndarray,
        share: tuple[float, ...],
    ) -> Mixture:
        first = np.append(tracks.by_tag.member, len(tracks))[tracks.by_tag.offset[:-1]]  # (T,) oldest track of a tag
        some = np.diff(tracks.by_tag.offset) > 0
        tag_chance = np.where(some & (first < released[:, None]), tag_chance, 0.0)
        tag_chance /= np.maximum(tag_chance.sum(axis=1, keepdims=True), 1e-300)
        shares = np.tile(np.asarray(share, float), (len(released), 1))
        shares[listens.count == 0, ARTIST] = shares[listens.count == 0, AGAIN] = 0
        shares[recent >= released, UNIFORM] = 0
        shares[~tag_chance.any(axis=1), TAG] = 0
        shares[:, POPULAR] += 1 - shares.sum(axis=1)
        return cls(tracks, released, recent, listens, tag_chance, shares)

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draw n tracks independently, with repeats: (B, n) int32."""
        b = len(self.released)
        part = (rng.random((b, n, 1)) > np.cumsum(self.share, axis=1)[:, None, :-1]).sum(axis=2)
        which, within = rng.random((b, n)), rng.random((b, n))
        item = np.empty((b, n), np.int32)
        for p, take in enumerate((self._popular, self._uniform, self._by_artist, self._by_tag, self._again)):
            row, column = np.nonzero(part == p)
            item[row, column] = take(row, which[row, column], within[row, column])
        return item

    def chance(self, item: np.ndarray) -> np.ndarray:
        """Return the probability of item (B, C) in one draw, (B, C) float."""
        heard = np.where(self.listens.present, self.listens.item, -1)
        by = np.where(heard >= 0, self.tracks.artist[heard], -1)
        (again,) = sum_matches(heard, item, self._per_listen(self.listens.present))
        (artist,) = sum_matches(by, self.tracks.artist[item], self._per_listen(self._artist_rate()))
        return self._sum(item, again, artist)

    def chance_of_all(self) -> np.ndarray:
        """Return the probability of every track in one draw, (B, I) float."""
        row, place = np.nonzero(self.listens.present)
        heard = self.listens.item[row, place]
        again = np.zeros((len(self.released), len(self.tracks)))
        np.add.at(again, (row, heard), self._per_listen(self.listens.present)[row, place])
        artist = np.zeros((len(self.released), len(self.tracks.by_artist.offset) - 1))
        np.add.at(artist, (row, self.tracks.artist[heard]), self._per_listen(self._artist_rate())[row, place])
        return self._sum(np.arange(len(self.tracks))[None, :], again, artist[:, self.tracks.artist])

    def _sum(self, item: np.ndarray, again: np.ndarray, artist: np.ndarray) -> np.ndarray:
        """Sum all five parts, (B, C); item (B, C) or (1, C), `artist` per unit of track weight."""
        t, n, share = self.tracks, self.released[:, None], self.share[:, :, None]
        per_weight = share[:, POPULAR] / t.below[n] + share[:, ARTIST] * artist
        tag_rate = self.share[:, [TAG]] * self._tag_rate()
        row = np.arange(len(n))[:, None]
        for k in range(t.tags.shape[1]):
            tag = t.tags[item, k]
            per_weight += np.where(tag >= 0, tag_rate[row, np.maximum(tag, 0)], 0)
        first = self.recent[:, None]
        uniform = share[:, UNIFORM] * (item >= first) / np.maximum(n - first, 1)
        return np.where(item < n, per_weight * t.weight[item] + uniform + share[:, AGAIN] * again, 0.0)

    def _per_listen(self, value: np.ndarray) -> np.ndarray:
        """Divide value (B, H) by the number of listens; 0 in unused columns."""
        return np.where(self.listens.present, value, 0) / np.maximum(self.listens.count, 1)[:, None]

    def _artist_rate(self) -> np.ndarray:
        """Probability per unit of track weight in a draw from the artist of each listen, (B, H)."""
        low, high = self._bounds(self.tracks.by_artist, self.tracks.artist[self.listens.item], self.released[:, None])
        below = self.tracks.by_artist.below
        return 1 / np.where(high > low, below[high] - below[low], 1.0)

    def _tag_rate(self) -> np.ndarray:
        """The same for tags (B, T), times the probability of the tag."""
        low, high = self._bounds(
            self.tracks.by_tag, np.arange(self.tag_chance.shape[1])[None, :], self.released[:, None]
        )
        below = self.tracks.by_tag.below
        return self.tag_chance / np.where(high > low, below[high] - below[low], 1.0)

    def _bounds(self, groups: Groups, group: np.ndarray, released: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return groups.offset[group], np.searchsorted(groups.key, group.astype(np.int64) * len(self.tracks) + released)

    def _popular(self, row: np.ndarray, which: np.ndarray, within: np.ndarray) -> np.ndarray:
        below, n = self.tracks.below, self.released[row]
        return np.minimum(np.searchsorted(below, within * below[n], side="right") - 1, n - 1)

    def _uniform(self, row: np.ndarray, which: np.ndarray, within: np.ndarray) -> np.ndarray:
        first, n = self.recent[row], self.released[row]
        return np.minimum(first + (within * (n - first)).astype(np.int64), n - 1)

    def _by_artist(self, row: np.ndarray, which: np.ndarray, within: np.ndarray) -> np.ndarray:
        heard = self._again(row, which, within)
        return self._in_group(self.tracks.by_artist, self.tracks.artist[heard], row, within)

    def _by_tag(self, row: np.ndarray, which: np.ndarray, within: np.ndarray) -> np.ndarray:
        edges = np.cumsum(self.tag_chance, axis=1)[row]  # (N, T)
        tag = (which[:, None] * edges[:, -1:] >= edges).sum(axis=1)
        return self._in_group(self.tracks.by_tag, np.minimum(tag, edges.shape[1] - 1), row, within)

    def _again(self, row: np.ndarray, which: np.ndarray, within: np.ndarray) -> np.ndarray:
        return self.listens.item[row, (which * self.listens.count[row]).astype(np.int64)]

    def _in_group(self, groups: Groups, group: np.ndarray, row: np.ndarray, within: np.ndarray) -> np.ndarray:
        low, high = self._bounds(groups, group, self.released[row])
        target = groups.below[low] + within * (groups.below[high] - groups.below[low])
        place = np.searchsorted(groups.below, target, side="right") - 1
        return groups.member[np.clip(place, low, np.maximum(high - 1, low))]
