"""Sentence vectors, with a real model that has an embedding for each of eight words."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from test_content import WORDS

from handsell.core.errors import ConfigError
from handsell.retrieval.content_vectors import fit_content_vectors
from handsell.retrieval.sentences import SentenceModel
from handsell.testing.small_catalog import NOW, draw_snapshot


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model for which "river" and "stone" mean the same."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, **{word: n for n, word in enumerate(WORDS, 1)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.random.default_rng(0).standard_normal((len(WORDS) + 1, 16)).astype(np.float32)
    weights[2] = weights[1]
    path = tmp_path_factory.mktemp("model")
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(path))
    return str(path)


def shelf(rng, titles):
    """Items that differ in nothing but their titles."""
    base = draw_snapshot(rng, items=len(titles), tags_per_item=0)
    metadata = base.metadata.drop_columns([c for c in ("title", "creators", "text") if c in base.metadata.column_names])
    return dataclasses.replace(base, metadata=metadata.append_column("title", pa.array(titles, pa.string())))


def test_texts_of_the_same_meaning_are_similar_unlike_their_hashed_words(rng, model):
    titles = ["river cloud", "stone cloud", "ember meadow", "lantern thunder", *rng.choice(WORDS, 60), None]
    items = shelf(rng, titles)
    by_meaning = fit_content_vectors(items, 32, before=NOW, text_model=model).vectors
    by_word = fit_content_vectors(items, 32, before=NOW).vectors
    assert by_meaning[0] @ by_meaning[1] > 0.99 > by_word[0] @ by_word[1]
    assert by_meaning[0] @ by_meaning[2] < 0.9
    assert not by_meaning[-1].any()  # without a title nothing is known
    np.testing.assert_array_equal(by_meaning, fit_content_vectors(items, 32, before=NOW, text_model=model).vectors)


def test_vectors_are_of_unit_length_and_zeros_for_empty_texts(model):
    vectors = SentenceModel(model)(["river", " ", "stone"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)


def test_a_wrong_model_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"retrieval.content.text_model.*nothing_here"):
        SentenceModel(str(tmp_path / "nothing_here"))
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'handsell\[text\]'"):
        SentenceModel("any")
