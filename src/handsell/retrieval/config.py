"""Candidate sources: each TOML section is one retriever's whole configuration."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from handsell.core.section import Section

MOST_SOURCES = 8  # Candidates carry a score and a rank of each


class SourceConfig(Section):
    """What every candidate source has."""

    enabled: bool = Field(True, description="false neither fits nor asks this source")
    k: int = Field(400, ge=1, description="candidates asked of this source")
    weight: float = Field(1.0, ge=0, description="weight of its ranks in the fused order (the blend)")


class OptionalSource(SourceConfig):
    """A source that is off until its section says `enabled = true`."""

    enabled: bool = Field(False, description="true fits and asks this source")


class FoldInSource(SourceConfig):
    """What every source that reads the history as weighted items has."""

    HISTORY: ClassVar[tuple[str, ...]] = ("half_life_days", "half_life_events", "dislikes")
    half_life_days: float = Field(28.0, gt=0, description="age at which an event of the history counts half")
    half_life_events: float | None = Field(
        None, gt=0, description="likes after it at which an event of the history counts half; none: only time counts"
    )
    dislikes: float = Field(
        1.0, ge=0, le=1, description="how much of its negative weight a disliked item of the history keeps; 0: none"
    )


class OptionalFoldIn(FoldInSource):
    """The same, off until its section says `enabled = true`."""

    enabled: bool = Field(False, description="true fits and asks this source")


class PopularityConfig(SourceConfig):
    k: int = Field(200, ge=1, description="candidates asked of this source")
    weight: float = Field(0.5, ge=0, description="weight of its ranks in the fused order (the blend)")
    half_life_days: float = Field(7.0, gt=0, description="age at which an interaction counts half")
    by_context: bool = Field(True, description="whether time of day and weekend count, as far as the log shows it")


class HistoryConfig(OptionalFoldIn):
    """The user's own items, for surfaces that allow repeats."""

    HISTORY: ClassVar[tuple[str, ...]] = (*FoldInSource.HISTORY, "repeat_exponent", "popularity_exponent")
    k: int = Field(50, ge=1, description="candidates asked of this source")
    half_life_days: float = Field(7.0, gt=0, description="decay of the history events that are summed")
    repeat_exponent: float = Field(
        1.0, ge=0, le=2, description="power of the share of an item's likes that are repeats; 0: all items alike"
    )
    popularity_exponent: float = Field(0.2, ge=0, le=1, description="power of an item's share of likes; 0: all alike")


class ItemKNNConfig(FoldInSource):
    neighbors: int = Field(100, ge=1, description="most similar items kept per item")
    shrinkage: float = Field(20.0, ge=0, description="added to the denominator; damps pairs with little support")
    asymmetry: float = Field(0.5, ge=0, le=1, description="share of the history item in the norm; 0.5 is the cosine")
    user_exponent: float = Field(0.0, ge=0, le=2, description="a pair counts by its user's degree to this power less")
    half_life_days: float = Field(14.0, gt=0, description="decay of the history events that vote")


class UserKNNConfig(OptionalFoldIn):
    HISTORY: ClassVar[tuple[str, ...]] = ("half_life_events", "dislikes")  # half_life_days has a part in the fit, too

    neighbors: int = Field(200, ge=1, description="most similar users that are asked")
    shrinkage: float = Field(5.0, ge=0, description="added to the denominator; damps users with little in common")
    item_exponent: float = Field(
        0.5, ge=0, le=2, description="an item in common counts by its degree to this power less"
    )
    sharpness: float = Field(1.0, gt=0, description="power of the similarity with which a neighbor speaks")
    half_life_days: float = Field(28.0, gt=0, description="decay of the history's and of the neighbors' events")


class EASEConfig(OptionalFoldIn):
    reg: float = Field(300.0, gt=0, description="L2 penalty of the item–item weights")
    user_exponent: float = Field(0.0, ge=0, le=1, description="a user's row is divided by their degree to this power")
    item_exponent: float = Field(0.0, ge=0, le=1, description="an item's column, likewise")
    answer_exponent: float = Field(0.0, ge=0, le=1, description="power of an item's degree in its answer")
    neighbors: int = Field(1_000, ge=1, description="strongest weights kept per item")
    max_items: int = Field(20_000, ge=1, description="the most liked items that are fitted; the rest stay unknown")
    half_life_days: float = Field(28.0, gt=0, description="decay of the history events that vote")


class ALSConfig(FoldInSource):
    embedding_size: int = Field(64, ge=2, description="D, factors per user and item")
    epochs: int = Field(8, ge=1, description="sweeps over users and items, from a spectral start")
    reg: float = Field(0.001, gt=0, description="L2 penalty of factors per unit of a row's evidence")
    frequency_exponent: float = Field(
        1.0, ge=0, description="how the penalty grows with a row's evidence; 0 not at all"
    )
    alpha: float = Field(3.0, gt=0, description="confidence of a seen pair per unit of event weight; unseen pairs: 1")
    blocks: int = Field(1, ge=1, description="Ray tasks per half sweep; 1 fits in one task")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the first factors")


class SpectralConfig(OptionalFoldIn):
    embedding_size: int = Field(256, ge=2, description="D, leading singular vectors kept")
    ridge: float = Field(
        0.03, ge=0, description="half-way point of the filter, a share of the largest squared value; 0: ideal"
    )
    user_exponent: float = Field(0.5, ge=0, le=1, description="a user's row is divided by their degree to this power")
    item_exponent: float = Field(0.5, ge=0, le=1, description="an item's column, likewise")
    answer_exponent: float = Field(0.5, ge=0, le=1, description="power of an item's degree in its answer")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomized decomposition")


class SVDConfig(OptionalFoldIn):
    embedding_size: int = Field(64, ge=2, description="D, leading singular vectors kept")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomized decomposition")


class TwoTowerConfig(SourceConfig):
    embedding_size: int = Field(64, ge=2, description="D, width of both towers' output")
    hidden: int = Field(128, ge=2, description="width of the layer inside a tower")
    epochs: int = Field(6, ge=1, description="passes over the positives")
    batch_size: int = Field(1024, ge=2, description="positives per step; the others of a batch are its negatives")
    learning_rate: float = Field(2e-3, gt=0, description="of Adam")
    reg: float = Field(1e-6, ge=0, description="weight decay")
    temperature: float = Field(0.07, gt=0, description="divides the inner products; lower is sharper")
    hard_negatives: int = Field(0, ge=0, description="negatives mined per row from the model's own top ranks; 0: none")
    workers: int = Field(1, ge=1, description="Ray Train workers")
    seed: int = Field(0, description="of first weights and batch order")


class SASRecConfig(OptionalSource):
    embedding_size: int = Field(64, ge=2, multiple_of=2, description="D, width of the transformer and of the items")
    layers: int = Field(2, ge=1, description="of the transformer")
    length: int = Field(50, ge=1, description="T, most recent events that it reads; features.history_length bounds it")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of activations left out in training")
    temperature: float = Field(0.05, ge=0, description="divides the cosine of query and item; 0 takes inner products")
    negatives: int = Field(4096, ge=1, description="items drawn per step where there are more than 30 000 to rank")
    epochs: int = Field(30, ge=1, description="passes over the users' lines, at most")
    patience: int = Field(5, ge=1, description="epochs without a better validation NDCG@10 after which it stops")
    validation_users: int = Field(1000, ge=0, description="last likes held out to stop by, per worker; 0 for none")
    batch_size: int = Field(1024, ge=1, description="positives per step")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW, after the warm-up; falls to 0 as a cosine")
    reg: float = Field(0.01, ge=0, description="weight decay, times the learning rate")
    workers: int = Field(1, ge=1, description="Ray Train workers")
    seed: int = Field(0, description="of first weights, batch order and dropout")


class ContentConfig(FoldInSource):
    k: int = Field(300, ge=1, description="candidates asked of this source")
    weight: float = Field(0.5, ge=0, description="weight of its ranks in the fused order (the blend)")
    embedding_size: int = Field(128, ge=2, description="dimensions kept of the hashed text and attribute vectors")
    text_model: str = Field(
        "",
        description="folder or name of a sentence-transformers model for titles and texts (`pip install "
        "'handsell[text]'`); empty: hashed words",
    )
    half_life_days: float = Field(14.0, gt=0, description="decay of history events at fold-in")


class TrendingConfig(OptionalSource):
    half_life_days: float = Field(1.0, gt=0, description="age at which an interaction counts half in the short memory")
    long_half_life_days: float = Field(14.0, gt=0, description="likewise in the long one, which says what to expect")
    prior: float = Field(5.0, gt=0, description="weight added to what is expected; damps items with few likes")


class SessionConfig(OptionalSource):
    """What sources of the current session have."""

    session_gap_minutes: float = Field(1440.0, gt=0, description="a longer pause between events begins a new session")


class SessionKNNConfig(SessionConfig):
    neighbors: int = Field(1500, ge=1, description="most similar past sessions that vote")
    sessions: int = Field(500_000, ge=1, description="newest sessions kept")
    sessions_per_item: int = Field(2_000, ge=1, description="newest sessions compared for an item of the request")
    position_half_life: float = Field(1.5, gt=0, description="items back at which an item of the session counts half")
    last_boost: float = Field(1.0, ge=0, description="weight added to the last item of the session, × its own")
    idf_exponent: float = Field(1.5, ge=0, description="power of log(sessions / sessions with the item); 0: all alike")
    half_life_days: float = Field(90.0, gt=0, description="age at which a past session counts half")
    length_exponent: float = Field(0.25, ge=0, description="a past session of n events counts 1 / n to this power")
    distance_half_life: float = Field(4.0, gt=0, description="events from the shared item at which a vote counts half")
    backward: float = Field(0.8, ge=0, description="votes for what came before the shared item, against 1 after it")
    repeat: float = Field(2.0, ge=0, description="likewise for the shared item itself, where the surface may repeat it")
    popularity_exponent: float = Field(0.3, ge=0, description="votes are divided by the item's sessions to this power")


class TransitionsConfig(SessionConfig):
    neighbors: int = Field(500, ge=1, description="strongest rules kept per item")
    steps: int = Field(15, ge=1, description="events apart that two items may be")
    distance_half_life: float = Field(3.0, gt=0, description="events apart at which a pair counts half")
    backward: float = Field(0.6, ge=0, description="weight of a pair against its order; 0: only what comes after")
    repeat: float = Field(2.0, ge=0, description="weight of an item's rule to itself, where the surface may repeat it")
    position_half_life: float = Field(1.0, gt=0, description="items back at which an item of the session counts half")
    half_life_days: float = Field(90.0, gt=0, description="age at which a past session counts half")
    length_exponent: float = Field(0.25, ge=0, description="a past session of n events counts 1 / n to this power")
    source_exponent: float = Field(
        0.7, ge=0, description="a rule is divided by the events of its first item to this power"
    )
    popularity_exponent: float = Field(0.3, ge=0, description="and by those of its second item to this power")
    shrinkage: float = Field(10.0, ge=0, description="added to both; damps rules with little support")


class BoughtTogetherConfig(SessionConfig):
    """Lists for cross-sell; an order is what a user took in one session."""

    neighbors: int = Field(100, ge=1, description="strongest companions kept per item")
    least_weight: float = Field(0.0, ge=0, description="events of at least this weight are in the basket: a purchase's")
    least_support: int = Field(2, ge=1, description="baskets that must hold a pair")
    shrinkage: float = Field(1.0, gt=0, description="baskets added to those observed and expected of a pair")
    substitutes: float = Field(0.5, ge=0, description="how much of the strength of looking at both is taken off a pair")


class BlendConfig(OptionalSource):
    """Several retrievers as one source, for where there is no ranker; each is fitted by its own section."""

    parts: dict[str, float] = Field(
        {"item_knn": 0.5, "als": 0.5}, min_length=1, description="weight of each part's scores, by retriever"
    )
    depth: int = Field(200, ge=2, description="items asked of each part; its scores are standardized over them")


class RetrievalConfig(Section):
    sources: Literal["auto", "enabled"] | None = Field(
        None,
        description="auto: training picks the sources that suit the data, judged on the validation window; a section "
        "that says `enabled` keeps its word. enabled: as the sections say. Not set: auto for data.format = tables",
    )
    popularity: PopularityConfig = PopularityConfig()
    history: HistoryConfig = HistoryConfig()
    item_knn: ItemKNNConfig = ItemKNNConfig()
    als: ALSConfig = ALSConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    sasrec: SASRecConfig = SASRecConfig()
    content: ContentConfig = ContentConfig()
    spectral: SpectralConfig = SpectralConfig()
    svd: SVDConfig = SVDConfig()
    ease: EASEConfig = EASEConfig()
    user_knn: UserKNNConfig = UserKNNConfig()
    trending: TrendingConfig = TrendingConfig()
    session_knn: SessionKNNConfig = SessionKNNConfig()
    transitions: TransitionsConfig = TransitionsConfig()
    bought_together: BoughtTogetherConfig = BoughtTogetherConfig()
    blend: BlendConfig = BlendConfig()
    candidates: int = Field(1_000, ge=1, le=1_000, description="candidates passed on to ranking")
    flat_below: int = Field(50_000, ge=1, description="catalog size up to which the index is exact")
    pq_above: int = Field(
        1_000_000, ge=1, description="catalog size above which its lists hold product-quantized residuals"
    )
    index_recall: float = Field(
        0.95, gt=0, lt=1, description="share of a source's k exact nearest that an approximate index is tuned to find"
    )

    @property
    def named(self) -> dict[str, SourceConfig]:
        """Every source's section by its name."""
        return {name: section for name, section in self if isinstance(section, SourceConfig)}

    def said(self, name: str) -> bool | None:
        """What the section of a source says about `enabled` in so many words; None: nothing."""
        section = getattr(self, name)
        return section.enabled if "enabled" in section.model_fields_set else None

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        on = [name for name, section in self if isinstance(section, SourceConfig) and section.enabled]
        if len(on) > MOST_SOURCES:
            raise ValueError(
                f"expected at most {MOST_SOURCES} sources, got {len(on)} ({', '.join(on)}): switch some off with "
                "enabled = false, or put several into retrieval.blend.parts"
            )
        return self

    @model_validator(mode="after")
    def _blends_what_there_is(self) -> Self:
        sources = {name for name, section in self if isinstance(section, SourceConfig)}
        known = sorted(sources - {"blend", "history"})  # a blend standardizes by items outside the history
        unknown = [name for name in self.blend.parts if name not in known]
        if unknown:
            raise ValueError(f"blend.parts has {', '.join(unknown)}: expected retrievers of {', '.join(known)}")
        return self
