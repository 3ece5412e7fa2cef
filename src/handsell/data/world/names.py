"""Readable genres, artist names and track titles, independent of hidden parameters."""

from __future__ import annotations

import numpy as np

# genre, typical energy, typical acousticness (0..1)
GENRES = (
    ("dream pop", 0.40, 0.45), ("bossa nova", 0.35, 0.80), ("techno", 0.92, 0.05), ("ambient", 0.10, 0.55),
    ("indie rock", 0.65, 0.35), ("hip hop", 0.68, 0.20), ("folk", 0.30, 0.92), ("house", 0.82, 0.08),
    ("jazz", 0.38, 0.82), ("metal", 0.97, 0.04), ("soul", 0.50, 0.50), ("drum and bass", 0.95, 0.04),
    ("singer-songwriter", 0.28, 0.85), ("synthpop", 0.70, 0.12), ("classical piano", 0.14, 0.97), ("punk", 0.93, 0.15),
    ("r&b", 0.48, 0.35), ("trip hop", 0.42, 0.30), ("country", 0.52, 0.68), ("afrobeat", 0.76, 0.38),
    ("shoegaze", 0.58, 0.25), ("reggae", 0.50, 0.45), ("disco", 0.84, 0.22), ("blues", 0.44, 0.66),
    ("lo-fi beats", 0.22, 0.48), ("post-rock", 0.55, 0.30), ("salsa", 0.80, 0.52), ("garage rock", 0.86, 0.20),
    ("chamber pop", 0.38, 0.70), ("grime", 0.83, 0.08), ("flamenco", 0.56, 0.88), ("electro", 0.80, 0.06),
    ("ambient drone", 0.06, 0.40), ("bluegrass", 0.62, 0.94), ("funk", 0.78, 0.30), ("trance", 0.90, 0.05),
    ("neo-soul", 0.42, 0.52), ("krautrock", 0.64, 0.22), ("choral", 0.16, 0.95), ("math rock", 0.74, 0.28),
    ("dub", 0.36, 0.18), ("city pop", 0.60, 0.32), ("fado", 0.24, 0.90), ("hardcore", 0.98, 0.05),
    ("new wave", 0.72, 0.18), ("gospel", 0.58, 0.60), ("samba", 0.74, 0.66), ("minimal", 0.46, 0.10),
)  # fmt: skip
PLACES = ("nordic", "desert", "coastal", "island", "urban", "alpine", "southern", "northern", "river", "highland")

FIRST = (
    "Velvet", "Silver", "Paper", "Hollow", "Golden", "Quiet", "Electric", "Crimson", "Northern", "Marble", "Distant",
    "Wild", "Broken", "Saint", "Midnight", "Copper", "Honest", "Blue", "Pale", "Little", "Second", "Glass", "Amber",
    "Winter", "Lucky", "Foreign", "Iron", "Sunday", "Tender", "Salt", "Violet", "Empty", "Young", "Brass", "Cedar",
)  # fmt: skip
SECOND = (
    "Harbor", "Lanterns", "Parade", "Foxes", "Orchard", "Satellites", "Machines", "Choir", "Meridian", "Canyon",
    "Letters", "Kingdom", "Wolves", "Avenue", "Radio", "Gardens", "Tides", "Theatre", "Arrows", "Museum", "Comets",
    "Station", "Hearts", "Monarch", "Sparrows", "Bridges", "Mirage", "Union", "Atlas", "Weather", "Rivals", "Tigers",
)  # fmt: skip
HEAD = (
    "Slow", "Last", "Open", "Falling", "Bright", "Hidden", "Summer", "Lonely", "Burning", "Endless", "Early", "Frozen",
    "Restless", "Gentle", "Double", "Faded", "Rising", "Stolen", "Secret", "Perfect", "Heavy", "Borrowed", "Sudden",
    "Familiar", "Careless", "Parallel", "Soft", "Crooked", "Invisible", "Careful", "Half", "Ordinary", "Sleeping",
)  # fmt: skip
TAIL = (
    "Light", "Train", "Water", "Rooms", "Season", "Mirror", "Signal", "Promise", "Fever", "Streets", "Weekend", "Ghost",
    "Thunder", "Company", "Colors", "Horizon", "Dance", "Stories", "Window", "Gravity", "Morning", "Letter", "Motion",
    "Daydream", "Echoes", "Distance", "Hours", "Shadow", "Circles", "Paradise", "Ocean", "Telephone", "Smoke", "Hands",
)  # fmt: skip
FORMS = (
    "{h} {t}", "{h} {t}", "{t}", "The {h} {t}", "{h} {t}, Part Two", "{t} in the {t2}", "No More {t}", "{h} and {h2}",
)  # fmt: skip


def list_genres(count: int) -> list[str]:
    """Return `count` distinct genres: GENRES first, then regional variants."""
    plain = len(GENRES)
    names = [GENRES[k % plain][0] for k in range(count)]
    for k in range(plain, count):
        kind = (k - plain) // plain
        again, place = divmod(kind, len(PLACES))
        names[k] = f"{PLACES[place]} {names[k]}" + (f" {again + 1}" if again else "")
    return names


def draw_artist_names(count: int, rng: np.random.Generator) -> list[str]:
    """Draw `count` distinct names; after all combinations, names get a number."""
    kinds = len(FIRST) * len(SECOND)
    order = rng.permutation(kinds)
    names = []
    for k in range(count):
        again, place = divmod(k, kinds)
        first, second = divmod(int(order[place]), len(SECOND))
        name = f"{FIRST[first]} {SECOND[second]}"
        names.append(f"{name} {again + 1}" if again else name)
    return names


def draw_track_titles(count: int, rng: np.random.Generator) -> list[str]:
    """Draw titles; they may repeat between artists."""
    form, h, h2 = (rng.integers(n, size=count).tolist() for n in (len(FORMS), len(HEAD), len(HEAD)))
    t, t2 = (rng.integers(len(TAIL), size=count).tolist() for _ in range(2))
    return [
        FORMS[f].format(h=HEAD[a], h2=HEAD[b], t=TAIL[c], t2=TAIL[d])
        for f, a, b, c, d in zip(form, h, h2, t, t2, strict=True)
    ]


def describe_mood(energy: float, acousticness: float) -> str:
    """Describe the audible attributes, for the free text of a track."""
    tempo = "calm" if energy < 0.35 else "easy-going" if energy < 0.6 else "driving" if energy < 0.85 else "intense"
    sound = "acoustic" if acousticness > 0.6 else "warm" if acousticness > 0.3 else "electronic"
    return f"{tempo}, {sound}"
