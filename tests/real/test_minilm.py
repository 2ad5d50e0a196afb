"""Our GGUF of all-MiniLM-L6-v2 gives the vectors that Sentence Transformers gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from local_llms.models import LoadedModel, load_model

pytestmark = pytest.mark.real

PUBLISHED = [
    # As measured with sentence-transformers on the original weights.
    ("A man is eating food.", "A man is eating a piece of bread.", 0.755),
    # Printed in the documentation of sentence-transformers: "Semantic Textual Similarity".
    ("The weather is lovely today.", "It's so sunny outside!", 0.6660),
    ("The weather is lovely today.", "He drove to the stadium.", 0.1046),
    ("It's so sunny outside!", "He drove to the stadium.", 0.1411),
    # The same: "Paraphrase Mining".
    ("The new movie is awesome", "The new movie is so great", 0.8939),
    ("The cat sits outside", "The cat plays in the garden", 0.6788),
    ("I love pasta", "Do you like pizza?", 0.5096),
    ("I love pasta", "The new movie is so great", 0.2560),
    ("I love pasta", "The new movie is awesome", 0.2440),
    ("A man is playing guitar", "The cat plays in the garden", 0.2105),
    ("The new movie is awesome", "Do you like pizza?", 0.1969),
    ("The cat sits outside", "A woman watches TV", 0.1310),
]


@pytest.fixture(scope="module")
def model(minilm_path: Path) -> Iterator[LoadedModel]:
    with load_model("all-minilm-l6-v2", threads=1) as model:
        assert model.info.path == minilm_path
        yield model


def test_cosines_are_those_of_sentence_transformers(model: LoadedModel) -> None:
    texts = sorted({text for pair in PUBLISHED for text in pair[:2]})
    vectors = dict(zip(texts, np.array(model.embed(texts)), strict=True))
    for first, second, cosine in PUBLISHED:
        assert float(vectors[first] @ vectors[second]) == pytest.approx(cosine, abs=0.003), (first, second)


def test_a_long_text_is_cut_where_sentence_transformers_cuts_it(model: LoadedModel) -> None:
    """At 256 tokens, [CLS] and [SEP] among them."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"] * 50
    whole, cut, shorter = np.array(model.embed([" ".join(words), " ".join(words[:254]), " ".join(words[:253])]))
    assert float(whole @ cut) == pytest.approx(1, abs=1e-4)
    assert float(whole @ shorter) < 1 - 1e-5


def test_case_and_accents_do_not_matter(model: LoadedModel) -> None:
    plain, other = np.array(model.embed(["a cafe in zurich", "A Café in ZÜRICH"]))
    assert float(plain @ other) == pytest.approx(1, abs=1e-4)


def test_unlike_texts_are_unlike(model: LoadedModel) -> None:
    vectors = np.array(model.embed(["the sea", "a tax form", "print('hello')", "東京"]))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-4)
    assert all(float(first @ second) < 0.5 for first, second in combinations(vectors, 2))
