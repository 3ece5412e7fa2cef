"""Convert requests of onboarding to queries, and questions to answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.errors import RequestError
from handsell.events.states import Events
from handsell.serving.http import render
from handsell.serving.http.answers import ReleaseStamp
from handsell.serving.http.onboarding import question_schemas as s
from handsell.serving.http.onboarding.question_selection import AskedItems
from handsell.serving.http.paging import Feed
from handsell.serving.http.queries import Query, QueryParser, find_known, make_user_key, new_id
from handsell.serving.http.schemas import RequestExclusions


def build_body(given: s.OnboardingParameters) -> s.OnboardingBody:
    """Return the parameters of the short form as a body, without its answers."""
    fields = given.model_dump(exclude={"liked", "disliked", "exclude"})
    return s.OnboardingBody(**fields, exclude=RequestExclusions(item_ids=given.exclude))


def parse_onboarding(
    parser: QueryParser, body: s.OnboardingBody, arrived: float, liked: Sequence[str], disliked: Sequence[str]
) -> Query:
    """Return the query for n questions; answers are the session's events. Raises RequestError (422)."""
    if both := sorted(set(liked) & set(disliked)):
        raise RequestError(
            f"disliked is expected to have no items of liked; got {both[0]!r:.80} in both", field="disliked"
        )
    exclude, shelf, now = body.exclude or RequestExclusions(), parser.snapshot, parser.clock.now()
    given = find_known(shelf.items, [*liked, *disliked])
    session = [parser.session(body.session, now), _build_answers(parser, liked, disliked, now)]
    return Query(
        recommendation_id=new_id(),
        user_id=make_user_key(body.user_id, body.anonymous_id),
        surface=parser.surface(body.surface),
        count=body.n,
        time=now,
        arrived=arrived,
        deadline_s=parser.deadline_s(body.deadline_ms),
        session=Events.concatenate(session),
        exclude=np.union1d(find_known(shelf.items, exclude.item_ids), given),
        feed=Feed.of(None),
        filter=parser.filter(body.filter),
        creators=find_known(shelf.creators, exclude.creators),
        tags=find_known(shelf.tags, exclude.tags),
    )


def _build_answers(parser: QueryParser, liked: Sequence[str], disliked: Sequence[str], now: int) -> Events:
    """Events of the answers, just before now; items that the catalog lacks are left out."""
    yes, no = (find_known(parser.snapshot.items, ids) for ids in (liked, disliked))
    item = np.concatenate([yes, no])
    weight = np.where(np.arange(len(item)) < len(yes), 1.0, -1.0)
    time = now - len(item) + np.arange(len(item))
    kind = next((code for code, kind in enumerate(parser.config.events.types.values()) if kind.seen), 0)
    return Events.of(np.zeros(len(item)), item, np.full(len(item), kind), time, weight)


def build_onboarding_answer(
    asked: AskedItems, snapshot: Snapshot, metadata: bool, release: ReleaseStamp
) -> s.OnboardingAnswer:
    items = render.build_items(asked.item, asked.information, snapshot, metadata)
    questions = [s.QuestionItem(**item.model_dump(exclude_unset=True)) for item in items]
    return s.OnboardingAnswer(items=questions, answers=asked.answers, degraded=list(asked.degraded), release=release)
