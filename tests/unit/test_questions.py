"""Questions of onboarding tell a planted taste apart, adapt to answers, and never come twice."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handsell.core.errors import BundleError
from handsell.data.interactions import Interactions
from handsell.onboarding.config import OnboardingConfig
from handsell.onboarding.question_choice import choose_questions
from handsell.onboarding.question_fitting import fit_questions
from handsell.onboarding.question_model import NAME, QuestionModel

NONE = np.zeros(0, np.int64)
GROUPS, PER_GROUP, USERS = 4, 25, 400


def draw_groups(rng, hits=10) -> Interactions:
    """Users of four groups, each with 25 items of its own, and ten items that all like."""
    user = np.repeat(np.arange(USERS), 24).astype(np.int32)
    own = (user % GROUPS) * PER_GROUP + rng.integers(0, PER_GROUP, len(user))
    item = np.where(rng.random(len(user)) < 0.3, GROUPS * PER_GROUP + rng.integers(0, hits, len(user)), own)
    items, weight = GROUPS * PER_GROUP + hits, np.ones(len(user), np.float32)
    return Interactions(
        user, item.astype(np.int32), np.ones(len(user), np.int8), np.arange(len(user)), weight, USERS, items
    )


@pytest.fixture(scope="module")
def model():
    return fit_questions(draw_groups(np.random.default_rng(0)), OnboardingConfig(clusters=GROUPS))


def ask_all(model, group, n):
    """Ask one question after another; a user of the group likes the group's items and the hits."""
    asked, liked, disliked = [], [], []
    for _ in range(n):
        allowed = np.ones(len(model), bool)
        allowed[asked] = False
        place = int(choose_questions(model, np.array(liked, int), np.array(disliked, int), allowed, 1).place[0])
        asked.append(place)
        item = model.item[place]
        (liked if item // PER_GROUP in (group, GROUPS) else disliked).append(place)
    return asked, liked, disliked


@pytest.mark.parametrize("group", range(GROUPS))
def test_answers_find_the_group_of_a_user(model, group):
    asked, liked, disliked = ask_all(model, group, 5)
    assert len(set(asked)) == 5
    posterior = model.compute_posterior(np.array(liked, int), np.array(disliked, int))
    best = model.like[posterior.argmax()]
    favorites = model.item[np.argsort(-best)[:PER_GROUP]]
    assert posterior.max() > 0.9 and (favorites // PER_GROUP == group).mean() > 0.9


def test_what_everybody_likes_is_popular_and_teaches_nothing(model):
    assert (model.item[:5] >= GROUPS * PER_GROUP).all()  # the most liked ones
    questions = choose_questions(model, NONE, NONE, np.ones(len(model), bool), 4)
    assert (model.item[questions.place] < GROUPS * PER_GROUP).all()
    groups = model.item[questions.place[:3]] // PER_GROUP
    assert len(set(groups.tolist())) == 3  # a second question about a group teaches less than one about another


def test_questions_depend_on_the_answers(model):
    allowed = np.ones(len(model), bool)
    first = choose_questions(model, NONE, NONE, allowed, 1).place
    allowed[first] = False
    yes, no = (
        choose_questions(model, *answers, allowed, 3).place.tolist() for answers in ((first, NONE), (NONE, first))
    )
    assert yes != no and not set(first.tolist()) & {*yes, *no}


def test_information_is_the_expected_fall_of_entropy(model):
    """Against the definition: entropy before, minus its expectation over the answers to the question."""
    question = choose_questions(model, NONE, NONE, np.ones(len(model), bool), 1)
    q, p = int(question.place[0]), model.share

    def entropy(p):
        return -(p * np.log2(p)).sum()

    like, known = model.like[:, q].astype(float), float(model.known[q])
    yes = p @ like
    after = yes * entropy(p * like / yes) + (1 - yes) * entropy(p * (1 - like) / (1 - yes))
    assert question.information[0] == pytest.approx(known * (entropy(p) - after), rel=1e-5)


@given(st.lists(st.integers(0, 109), max_size=30, unique=True), st.integers(0, 12), st.integers(0, 2**110 - 1))
def test_no_question_comes_twice_and_only_allowed_ones_come(model, answered, n, bits):
    allowed = np.array([bits >> q & 1 for q in range(len(model))], bool)
    allowed[answered] = False
    liked, disliked = np.array(answered[::2], int), np.array(answered[1::2], int)
    found = choose_questions(model, liked, disliked, allowed, n)
    assert len(found.place) == len(set(found.place.tolist())) == min(n, allowed.sum())
    assert allowed[found.place].all() and (found.information >= 0).all()


def test_a_tiny_or_empty_catalog_has_a_model():
    log = draw_groups(np.random.default_rng(1))
    none = fit_questions(log.where(np.zeros(len(log), bool)), OnboardingConfig())
    assert len(none) == 0 and len(choose_questions(none, NONE, NONE, np.zeros(0, bool), 3).place) == 0
    few = fit_questions(log.where(log.user < 3), OnboardingConfig())
    assert few.like.shape[0] == 1 and np.isfinite(few.like).all()
    assert (choose_questions(few, NONE, NONE, np.ones(len(few), bool), 3).information < 1e-6).all()


def test_a_model_is_saved_and_a_broken_one_is_refused_in_words(model, tmp_path):
    model.save(tmp_path)
    loaded = QuestionModel.load(tmp_path)
    np.testing.assert_array_equal(loaded.like, model.like)
    assert loaded.find(model.item[[3, 0]]).tolist() == [3, 0] and loaded.find(np.array([-1, 10**6])).tolist() == [
        -1,
        -1,
    ]
    assert QuestionModel.load(tmp_path / "elsewhere") is None
    replace(model, known=model.known[:5]).save(tmp_path)
    with pytest.raises(BundleError, match="expected arrays of 110 items and 4 clusters: train again"):
        QuestionModel.load(tmp_path)
    (tmp_path / NAME).write_bytes(b"PK")
    with pytest.raises(BundleError, match="cannot be read"):
        QuestionModel.load(tmp_path)
