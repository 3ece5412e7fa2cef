"""What a slate can be compared with, and what a person can be imagined to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handsell.config import Config
from handsell.data.config import EventType
from handsell.experiments.state import open_states

MOST_EVENTS = 4
THE_DIALS = ("", "Only the dials")


@dataclass(frozen=True)
class EventChoice:
    """An event of `GET /v1/preview` without its item; `is_liked` is whether it counts as a positive one."""

    kind: str
    text: str
    is_liked: bool


def list_comparisons(config: Config, surface: str, bundles: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return what the second slate can be made with: the value and the text of each choice.

    `surface` is that of the first slate; `bundles` are those that the gateway holds, the live one first.
    """
    canary = open_states(config).read().running_canary if len(bundles) > 1 else None
    found = [THE_DIALS]
    for place, bundle in enumerate(bundles if len(bundles) > 1 else ()):
        if place == 0:
            found.append(("bundle:live", f"Live bundle {bundle}"))
        elif canary is not None and bundle == canary.bundle:
            found.append((f"bundle:{bundle}", f"Canary {bundle} ({canary.share:.0%} of users)"))
        else:
            found.append((f"bundle:{bundle}", f"Bundle {bundle}"))
    for name, experiment in config.experiments.items():
        found += [(f"arm:{name}.{arm}", f"Arm {arm} of the experiment {name}") for arm in experiment.arms]
    found += [(f"surface:{name}", f"Shown on {name}") for name in config.surface_names if name != surface]
    return found


def list_event_choices(config: Config) -> tuple[EventChoice, ...]:
    """Return the events that can be imagined: those that say something about taste, the weakest positive one first.

    A type whose weight depends on its value is there with its best and its worst value.
    """
    found: list[tuple[float, EventChoice]] = []
    for name, kind in config.events.types.items():
        found += [(weight, _make_choice(name, value, weight)) for weight, value in _list_weights(kind) if weight]
    liked = sorted((one for one in found if one[0] > 0), key=lambda one: one[0])
    disliked = sorted((one for one in found if one[0] < 0), key=lambda one: one[0])
    chosen = [*liked[: MOST_EVENTS - 1], *disliked[:1]] if disliked else liked[:MOST_EVENTS]
    return tuple(choice for _, choice in chosen)


def _list_weights(kind: EventType) -> list[tuple[float, float | None]]:
    if not kind.weight_by_value:
        return [(kind.weight, None)]
    pairs = sorted((weight, value) for value, weight in kind.weight_by_value)
    return [pairs[0], pairs[-1]] if len(pairs) > 1 else [pairs[0]]


def _make_choice(name: str, value: float | None, weight: float) -> EventChoice:
    text = name.replace("_", " ")
    if value is None:
        return EventChoice(name, text, weight > 0)
    return EventChoice(f"{name}={value:g}", f"{text} {value:g}", weight > 0)
