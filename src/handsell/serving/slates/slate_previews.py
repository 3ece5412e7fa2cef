"""Previews: slates and explanations with another bundle, arm or setting, which nobody is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from handsell.core.errors import RequestError
from handsell.experiments.traffic import Participation, Traffic, Variant
from handsell.serving.graph.loaded_bundle import LoadedBundle, now
from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.http import answers as a
from handsell.serving.http import schemas as s
from handsell.serving.http.explain import build_answer
from handsell.serving.http.preview import preview_schemas as p
from handsell.serving.http.preview.preview_queries import add_dials, build_preview_answer, parse_preview
from handsell.serving.http.queries import Query, QueryParser
from handsell.serving.slates.recommender import Bundles

T = TypeVar("T")
LIVE = "live"
AnswerFrom = Callable[[LoadedBundle, QueryParser, Query], Awaitable[T]]


class SlatePreviews:
    """`assign` returns the arms of a user as the service would give them, `find_user` whom an id belongs to."""

    def __init__(
        self, bundles: Bundles, assign: Callable[[p.PreviewParameters], Participation],
        get_traffic: Callable[[], Traffic], find_user: Callable[[str], str | None],
    ):  # fmt: skip
        self._bundles, self._assign, self._get_traffic, self._find_user = bundles, assign, get_traffic, find_user

    async def preview(self, given: p.PreviewParameters) -> p.PreviewAnswer:
        variant, arms = self._choose(given)

        async def answer_from(bundle: LoadedBundle, parser: QueryParser, query: Query) -> p.PreviewAnswer:
            made = await bundle.preview(query)
            held = self._bundles.list_bundles()
            return build_preview_answer(given, query, made, arms, held, parser.config, bundle.snapshot, bundle.release)

        return await self._answer(given, variant, answer_from)

    async def explain(self, given: p.PreviewExplainParameters) -> a.ExplainAnswer:
        variant, _ = self._choose(given)

        async def answer_from(bundle: LoadedBundle, parser: QueryParser, query: Query) -> a.ExplainAnswer:
            explained = await bundle.explain(replace(query, items=parser.find_item(given.item_id, deleted_too=True)))
            asked = s.ExplainParameters(
                user_id=given.user_id, item_id=given.item_id, surface=given.surface, features=given.features
            )
            return build_answer(asked, explained, parser.config, bundle.snapshot, bundle.release.stamp)

        return await self._answer(given, variant, answer_from)

    def _choose(self, given: p.PreviewParameters) -> tuple[Variant, dict[str, str]]:
        """Return how the slate is made, and its arms: those named, or without a name those of the user."""
        own = self._assign(given)
        if given.arm is None and given.bundle is None:
            return own.variant, own.list_arms()
        variant, arms = Variant(), dict[str, str]()
        if given.arm is not None:
            experiment, _, arm = given.arm.partition(".")
            found = self._get_traffic().find_arm(experiment, arm)
            if found is None:
                raise RequestError(
                    f"arm: expected EXPERIMENT.ARM of the configuration, got {given.arm!r:.80}", field="arm",
                    code="unknown_arm",
                )  # fmt: skip
            variant, arms = found, {experiment: arm}
        if given.bundle is not None:
            variant = replace(variant, bundle=None if given.bundle == LIVE else given.bundle)
        return variant, arms

    async def _answer(self, given: p.PreviewParameters, variant: Variant, answer_from: AnswerFrom[T]) -> T:
        async def answer(bundle: LoadedBundle) -> T:
            overlay = add_dials(bundle.config, variant.overlay, given)
            parser = bundle.build_parser(overlay)
            query = parse_preview(parser, given, self._find_user(given.user_id) or given.user_id, now())
            return await answer_from(bundle, parser, replace(query, arms=variant.arms, overlay=overlay))

        if variant.bundle is None:
            return await self._bundles.from_one_bundle(answer)
        held = self._bundles.find_bundle(variant.bundle)
        if held is None:
            known = ", ".join(self._bundles.list_bundles())
            raise RequestError(
                f"bundle: expected live or a bundle that this gateway holds ({known}), "
                f"got {variant.bundle!r:.80}: give it to users with `handsell bundles promote … --canary 1%`",
                field="bundle", status=404, code="bundle_not_held",
            )  # fmt: skip
        try:
            return await answer(held)
        except BundleNotHeld as error:
            raise RequestError(
                f"bundle: {error} yet: ask again in a moment", field="bundle", status=503, code="bundle_not_held"
            ) from error
