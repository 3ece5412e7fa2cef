"""Kept answers end at their time, and the least recently used one makes room."""

from types import SimpleNamespace

import numpy as np
import pytest

from handsell.config import Config
from handsell.core.batches import Slates
from handsell.eligibility.config import Surface
from handsell.serving.reuse import slate_reuse
from handsell.serving.reuse.answer_keys import AnswerKey
from handsell.serving.reuse.kept_answers import Kept, KeptAnswers
from handsell.serving.reuse.slate_reuse import SlateReuse, reranks_alike
from handsell.serving.reuse.user_slate import UserSlate


def keep(answers: KeptAnswers, key: bytes, made_us: int = 0, size: int = 10) -> None:
    answers.put(key, Kept(key, made_us, made_us + 100, size))


def test_an_answer_is_kept_until_its_end():
    answers = KeptAnswers(1_000)
    keep(answers, b"a", made_us=50)
    assert answers.find(b"a", 149).value == b"a" and answers.find(b"b", 60) is None
    assert answers.find(b"a", 150) is None and len(answers) == 0 and answers.size == 0


def test_an_answer_from_the_future_is_dropped():
    answers = KeptAnswers(1_000)
    keep(answers, b"a", made_us=50)
    assert answers.find(b"a", 49) is None and not len(answers)


def test_the_least_recently_used_answer_makes_room():
    answers = KeptAnswers(30)
    for key in (b"a", b"b", b"c"):
        keep(answers, key)
    assert answers.find(b"a", 1)
    keep(answers, b"d")
    assert answers.find(b"b", 1) is None and answers.find(b"a", 1) and answers.size == 30
    keep(answers, b"e", size=31)
    assert len(answers) == answers.size == 0


def test_an_answer_replaces_the_one_under_its_key():
    answers = KeptAnswers(30)
    keep(answers, b"a", size=20)
    keep(answers, b"a", size=15)
    assert answers.size == 15 and len(answers) == 1


def test_an_answer_that_grows_makes_room():
    answers = KeptAnswers(30)
    for key in (b"a", b"b"):
        keep(answers, key)
    answers.grow(b"b", 15)
    answers.grow(b"gone", 15)
    assert answers.find(b"a", 1) is None and answers.find(b"b", 1) and answers.size == 25


def test_what_has_ended_leaves_when_another_comes():
    answers = KeptAnswers(1_000)
    keep(answers, b"a")
    keep(answers, b"b", made_us=100)
    assert len(answers) == 1 and answers.size == 10


KEY = AnswerKey(b"slate", b"ranked")
QUERY = SimpleNamespace(user_id="u1", surface=0, count=2, time=1_000, overlay="", is_fresh=False)
SLATES = Slates(
    np.zeros((3, 4), np.int32), *(np.zeros((3, 4), np.float32) for _ in range(4)), np.ones((3, 4), np.float32), ("a",)
)


def open_reuse(settle_s: float = 0.0, **settings) -> tuple[SlateReuse, SimpleNamespace]:
    """A reuse of slates, and the version of the catalog that it has seen."""
    config = Config.model_validate({"name": "shop", "surfaces": {"home": Surface()}, **settings})
    made, snapshot = SlateReuse(config, lambda overlay: config, settle_s), show_catalog()
    made.build_keys([], SimpleNamespace(snapshot=snapshot))
    return made, snapshot


def show_catalog(ends: int = 10**9) -> SimpleNamespace:
    """A catalog of one item, which is available until then."""
    return SimpleNamespace(available=np.ones(1, bool), published=np.zeros(1), expires=np.full(1, ends))


def test_a_slate_is_cut_to_its_own_row_and_length():
    reuse, snapshot = open_reuse()
    reuse.keep_slate(QUERY, KEY, snapshot, UserSlate(SLATES, 1, False))
    assert slate_reuse.ENTRY_BYTES < reuse.size < slate_reuse.ITEM_BYTES
    kept = reuse.find_slate(QUERY, KEY)
    assert kept.slates.item.shape == (1, 2) and kept.row == 0 and kept.slates.item.base is None


def test_a_reused_slate_counts_what_is_written_of_it_once():
    reuse, snapshot = open_reuse()
    reuse.keep_slate(QUERY, KEY, snapshot, UserSlate(SLATES, 1, False))
    before, kept = reuse.size, reuse.find_slate(QUERY, KEY)
    assert reuse.size == before + 2 * slate_reuse.ITEM_BYTES
    kept.rendered["items"] = []
    assert reuse.find_slate(QUERY, KEY).rendered == {"items": []} and reuse.size == before + 2 * slate_reuse.ITEM_BYTES


def test_nothing_is_kept_until_stages_elsewhere_know_the_catalog(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(slate_reuse.time, "monotonic", lambda: now[0])
    reuse, snapshot = open_reuse(settle_s=2.0)
    for later, kept in ((1.9, False), (0.2, True)):
        now[0] += later
        reuse.keep_slate(QUERY, KEY, snapshot, UserSlate(SLATES, 1, False))
        assert (reuse.find_slate(QUERY, KEY) is not None) == kept


def test_a_new_catalog_drops_everything_and_takes_nothing_of_the_old_one():
    reuse, snapshot = open_reuse()
    reuse.keep_slate(QUERY, KEY, snapshot, UserSlate(SLATES, 1, False))
    reuse.build_keys([], SimpleNamespace(snapshot=show_catalog()))
    assert reuse.size == 0
    reuse.keep_slate(QUERY, KEY, snapshot, UserSlate(SLATES, 1, False))
    assert reuse.find_slate(QUERY, KEY) is None


@pytest.mark.parametrize(
    "reranking",
    [{"exploration": {"share": 0.1}}, {"exploration": {"new_items": {"share": 0.1}}}, {"rules": "rules.toml"}],
)
def test_slates_that_are_drawn_counted_or_ruled_are_not_reused(reranking):
    config = Config.model_validate({"name": "shop", "reranking": reranking})
    assert reranks_alike(Config(name="shop")) and not reranks_alike(config)
