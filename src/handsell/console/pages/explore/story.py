"""The story of one item: each step from the catalog to the slate, in words, from the answer of an explanation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handsell.console.pages.explore import words

MOST_ARGUMENTS = 6
SMALLEST = 0.02  # share of the largest argument below which one is not named


@dataclass(frozen=True)
class StoryLine:
    """`share` (0 to 1) is how much it counts beside the other lines; `is_for` whether for the item, None if neither."""

    text: str
    note: str = ""
    share: float | None = None
    is_for: bool | None = None


@dataclass(frozen=True)
class StoryStep:
    """`sign` is good (it goes on), bad (it ends here), or skipped (what would have been)."""

    title: str
    sentence: str
    sign: str
    lines: tuple[StoryLine, ...] = ()
    left: int | None = None  # items that are left after this step


@dataclass(frozen=True)
class ItemStory:
    outcome: str
    is_shown: bool
    steps: tuple[StoryStep, ...]


def build_story(answer: Mapping[str, Any], titles: Mapping[str, str]) -> ItemStory:
    """Build the story from the answer of `GET /v1/explain`."""
    steps = [
        step
        for step in (
            _tell_eligibility(answer), _tell_sources(answer), _tell_short_list(answer), _tell_ranking(answer),
            _tell_arrangement(answer, titles),
        )
        if step is not None
    ]  # fmt: skip
    return ItemStory(_tell_outcome(answer), answer["outcome"] == "shown", tuple(steps))


def _tell_outcome(answer: Mapping[str, Any]) -> str:
    removed = (answer["eligibility"] or {}).get("removed_by") or []
    candidates, ranking, reranking = (answer[name] or {} for name in ("candidates", "ranking", "reranking"))
    return words.OUTCOMES[answer["outcome"]].format(
        position=answer["position"], count=answer["count"],
        filter=words.name_filter(removed[0]["filter"]).lower() if removed else "a rule takes it out",
        passed=_group(candidates.get("passed_on")), rank=_group(ranking.get("rank")), of=_group(ranking.get("of")),
        ranked=_group(ranking.get("passed_on")), place=_group(reranking.get("place")),
    )  # fmt: skip


def _tell_eligibility(answer: Mapping[str, Any]) -> StoryStep | None:
    if answer["eligibility"] is None:
        return None
    catalog = answer["release"]["catalog"]
    removed = answer["eligibility"]["removed_by"]
    lines = tuple(StoryLine(words.name_filter(one["filter"]), one["detail"]) for one in removed)
    if not removed:
        return StoryStep("May it be shown?", "Yes: it is available, and no filter takes it out.", "good", left=catalog)
    return StoryStep("May it be shown?", "No. The next steps say what would happen without the filter.", "bad", lines)


def _tell_sources(answer: Mapping[str, Any]) -> StoryStep | None:
    found = answer["candidates"]
    if found is None:
        return None
    known = [one for one in found["sources"] if one["outcome"] == "returned"]
    lines = [
        StoryLine(words.name_source(one["source"]), f"place {_group(one['rank'])} of {_group(one['k'])}",
                  1 - (one["rank"] - 1) / one["k"], True)
        for one in sorted(known, key=lambda one: one["rank"] / one["k"])
    ]  # fmt: skip
    lines += [_tell_absence(one) for one in found["sources"] if one["outcome"] != "returned"]
    sentence = f"{len(known)} of {len(found['sources'])} methods suggest it." if known else "No method suggests it."
    return StoryStep("Who suggests it?", sentence, _sign(bool(known), answer), tuple(lines), found["of"])


def _tell_absence(source: Mapping[str, Any]) -> StoryLine:
    note = {
        "beyond_k": f"only at place {_group(source['rank'])}; the first {_group(source['k'])} count",
        "no_evidence": "nothing is known about it here",
        "failed": "did not answer",
    }[source["outcome"]]
    return StoryLine(words.name_source(source["source"]), note)


def _tell_short_list(answer: Mapping[str, Any]) -> StoryStep | None:
    found = answer["candidates"]
    if found is None or found["rank"] is None:
        return None
    passes = found["rank"] <= found["passed_on"]
    sentence = (
        f"All suggestions together: place {_group(found['rank'])} of {_group(found['of'])}. "
        f"The first {_group(found['passed_on'])} are looked at closely."
    )
    return StoryStep(
        "Is it among the best suggestions?", sentence, _sign(passes, answer), left=min(found["passed_on"], found["of"])
    )


def _tell_ranking(answer: Mapping[str, Any]) -> StoryStep | None:
    ranking = answer["ranking"]
    if ranking is None:
        return None
    passes = ranking["rank"] <= ranking["passed_on"]
    sentence = f"Place {_group(ranking['rank'])} of {_group(ranking['of'])}"
    if ranking["score"] is not None and ranking["contributions"]:
        sentence += f", with an estimated chance of {ranking['score']:.1%} that this person chooses it"
    sentence += f". The best {_group(ranking['passed_on'])} go on."
    if ranking["as_if_candidate"]:
        sentence = f"{_tell_condition(answer)}: {sentence[0].lower()}{sentence[1:]}"
    sign = "skipped" if ranking["as_if_candidate"] else _sign(passes, answer)
    lines = weigh_arguments(ranking["contributions"])
    return StoryStep("How well does it fit?", sentence, sign, lines, ranking["passed_on"])


def _tell_condition(answer: Mapping[str, Any]) -> str:
    """Say under which conditions an item that is not a candidate would be ranked."""
    found = answer["candidates"] or {"rank": None}
    removed = {one["filter"] for one in (answer["eligibility"] or {}).get("removed_by") or ()}
    conditions = []
    if removed:
        conditions.append("it were available" if removed <= words.UNAVAILABLE else "no filter took it out")
    if found["rank"] is None or found["rank"] > found["passed_on"]:
        conditions.append("it had been suggested" if found["rank"] is None else "it were among the best suggestions")
    return f"If {' and '.join(conditions)}"


def weigh_arguments(contributions: Sequence[Mapping[str, Any]]) -> tuple[StoryLine, ...]:
    """Return what speaks for and against an item, the strongest first; features that say the same are added up."""
    sums: dict[str, float] = defaultdict(float)
    for one in contributions:
        sums[words.name_feature(one["feature"])] += one["contribution"]
    strongest = sorted(sums.items(), key=lambda one: -abs(one[1]))[:MOST_ARGUMENTS]
    largest = abs(strongest[0][1]) if strongest else 0.0
    return tuple(
        StoryLine(text, "speaks for it" if value > 0 else "speaks against it", abs(value) / largest, value > 0)
        for text, value in strongest
        if largest and abs(value) / largest >= SMALLEST
    )


def _tell_arrangement(answer: Mapping[str, Any], titles: Mapping[str, str]) -> StoryStep | None:
    made = answer["reranking"]
    if made is None:
        return None
    if made["place"] is None:
        return StoryStep("Where does it stand in the slate?", "A rule takes it out.", "bad")
    place, count = made["place"], answer["count"]
    start = f"From place {_group(made['before'])} to place {_group(place)}."
    if place == made["before"]:
        start = f"It stays at place {_group(place)}."
    lines = tuple(
        StoryLine(words.name_move(name), _tell_other_place(made["place_without"][name], place))
        for name in made["moved_by"]
    )
    reason = made["reason"]
    about = reason["item_id"] if reason else None
    why = f" {words.name_reason(reason['code'], titles.get(about, about) if about else None)}." if reason else ""
    return StoryStep(
        "Where does it stand in the slate?", start + why, "good" if place <= count else "bad", lines, count
    )


def _tell_other_place(without: int | None, place: int) -> str:
    if without is None:
        return "brings it in; without this it would be left out"
    return f"moves it {'up' if without > place else 'down'}; without this it would be at place {_group(without)}"


def _sign(passes: bool, answer: Mapping[str, Any]) -> str:
    removed = (answer["eligibility"] or {}).get("removed_by")
    return "skipped" if removed else "good" if passes else "bad"


def _group(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
