"""The words of the page, for readers who know no model by its name."""

from __future__ import annotations

from handsell.features.registry import find_features

SOURCES = {
    "popularity": "Popular with everybody",
    "trending": "Liked more this week than before",
    "history": "This person comes back to it",
    "item_knn": "Liked by people who liked the same items",
    "user_knn": "Liked by people with similar taste",
    "als": "Fits the taste that everybody's likes reveal",
    "ease": "Goes together with what this person likes",
    "svd": "Shares the main patterns of this person's taste",
    "spectral": "Shares the main patterns of taste",
    "two_tower": "Fits the person's profile",
    "sasrec": "Comes next, going by the order of recent items",
    "transitions": "Often follows the latest items",
    "session_knn": "Chosen in similar sessions",
    "content": "Similar title, topics or creator",
    "bought_together": "Bought together with these items",
    "blend": "A mix of several methods",
    "fallback": "Popular, while the search for candidates fails",
}
REASONS = {
    "recommended_for_you": "Fits what this person does",
    "listen_again": "Known, and likely to be wanted again",
    "because_you_liked": "Because {item} was chosen",
    "similar_to_recent": "Similar to {item}, a recent choice",
    "from_creator_you_play": "By a creator this person often chooses",
    "new_release": "New, and similar in content",
    "matches_your_taste": "Matches favorite topics",
    "popular": "Popular with everybody",
    "explore": "Shown by chance, to learn about it",
}
FILTERS = {
    "unavailable": "Not available",
    "not_yet_published": "Not published yet",
    "expired": "Expired",
    "excluded": "Left out by the request",
    "seen": "Already known to this person",
    "shown": "Shown a short time ago",
    "item_cap": "Shown often enough",
    "blocked_creator": "This person blocks its creator",
    "blocked_tag": "This person blocks one of its topics",
    "surface_filter": "Does not pass the filter of this surface",
    "request_filter": "Does not pass the filter of the request",
    "unknown_history": "What was shown before could not be read",
}
UNAVAILABLE = {"unavailable", "not_yet_published", "expired"}  # filters of the catalog, for everybody
MOVES = {
    "diversity": "Variety: items that are unlike those above come forward",
    "same_creator_gap": "Items by one creator are kept apart",
    "category_window": "Items of one topic are kept apart",
    "calibration": "The mix of topics is kept like that of the history",
    "novelty": "Lesser-known items come forward",
    "serendipity": "Surprising but fitting items come forward",
    "floor": "Items that fit far less than others that are left do not come forward",
    "exploration": "Chance: some places go to items to learn about",
    "fatigue": "Items that were shown and ignored step back",
    "business_rules": "Business rules",
}
FEATURES = {
    "src_fused": "How high the methods place it together",
    "src_count": "How many methods suggest it",
    "creator_affinity": "How much this person likes its creator",
    "creator_share": "How much of the history is by its creator",
    "tag_affinity": "How much this person likes its topics",
    "times_in_history": "How often this person chose it before",
    "hours_since_item": "How long ago this person chose it",
    "history_place": "How many other things this person chose since",
    "hours_since_creator": "How long ago this person chose its creator",
    "last_item_similarity": "How close it is to the latest choice",
    "item_age_days": "How new it is",
    "surface": "The place where it is shown",
}
FAMILIES = {  # beginnings of features that say the same in different ways
    "item_positive": "How popular it was lately",
    "item_events": "How popular it was lately",
    "item_trend": "Whether its popularity rises",
    "user_": "This person's habits in general",
    "hour_": "The time of day",
    "weekday_": "The day of the week",
}
OUTCOMES = {
    "shown": "Shown at place {position}.",
    "filtered": "Not shown: {filter}.",
    "not_retrieved": "Not shown: no method suggests it for this person.",
    "beyond_candidates": "Not shown: suggested, but not among the {passed} best suggestions.",
    "cut_by_ranking": "Not shown: at place {rank} of {of} after ranking, and the best {ranked} go on.",
    "below_the_slate": "Not shown: at place {place}, and the slate ends at {count}.",
    "unknown": "Not known: a part of the service did not answer.",
}
DEGRADED = {
    "shown_and_blocked": "what was shown and blocked could not be read",
    "event_log": "the latest events could not be read",
    "features": "the person's profile could not be read",
    "candidates": "the search for candidates",
    "ranking": "ranking",
    "reranking": "arranging the slate",
}


def name_source(name: str) -> str:
    """Return why a source suggests an item."""
    return SOURCES.get(name) or f"Suggested by {name.replace('_', ' ')}"


def name_reason(code: str, about: str | None) -> str:
    """Return a reason; `about` is the title of the item that it names."""
    text = REASONS.get(code) or code.replace("_", " ").capitalize()
    return text.format(item=f"“{about}”" if about else "an item of the history")


def name_filter(name: str) -> str:
    return FILTERS.get(name) or name.replace("_", " ").capitalize()


def name_move(name: str) -> str:
    return MOVES.get(name) or name.replace("_", " ").capitalize()


def name_feature(name: str) -> str:
    """Return what a feature of the ranker looks at."""
    if name in FEATURES:
        return FEATURES[name]
    if name.startswith("src_") and name.endswith(("_rank", "_z")):
        return name_source(name.removeprefix("src_").removesuffix("_rank").removesuffix("_z"))
    for beginning, words in FAMILIES.items():
        if name.startswith(beginning):
            return words
    for group in ("item", "cross", "context"):
        if found := find_features(group).get(name):
            return found.description.rstrip(".")
    return name.removeprefix("item_").replace("_", " ").capitalize()


def name_failures(names: list[str]) -> str:
    """Return which parts of the service failed, in one sentence; empty where none did."""
    if not names:
        return ""
    return "The slate is not complete: " + ", ".join(DEGRADED.get(name, name.replace("_", " ")) for name in names) + "."
