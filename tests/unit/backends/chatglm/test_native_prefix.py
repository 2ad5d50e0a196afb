"""GLM-4 in the library's own layout: its tokenizer.json puts [gMASK] and <sop> in front of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer, models, processors

from local_llms.backends.transformers.tokenizer_json import JsonVocabulary


def vocabulary_of(folder: Path, front: list[str]) -> JsonVocabulary:
    marks = ["[gMASK]", "<sop>", "<bos>"]
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    tokenizer.add_special_tokens(marks)
    if front:
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=" ".join((*front, "$A")), special_tokens=[(text, 2 + marks.index(text)) for text in front]
                ),
            ]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    return JsonVocabulary.of(folder)


def test_several_tokens_are_a_prefix(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tmp_path, ["[gMASK]", "<sop>"])
    assert vocabulary.prompt_prefix == (2, 3)
    assert (vocabulary.bos_id, vocabulary.adds_bos) == (None, False)


def test_a_single_one_is_a_bos(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tmp_path, ["<bos>"])
    assert vocabulary.prompt_prefix == ()
    assert (vocabulary.bos_id, vocabulary.adds_bos) == (4, True)


def test_none_is_none(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(tmp_path, [])
    assert (vocabulary.prompt_prefix, vocabulary.bos_id) == ((), None)
