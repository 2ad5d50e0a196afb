"""Markers of a ``tokenizer.json`` that swallow white space: the ids are those of the tokenizers library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.backends.transformers.tokenizer_json import JsonVocabulary
from local_llms.backends.transformers.vocabularies import vocabulary_of
from local_llms.catalog import Template
from local_llms.prompts import encode, render, text_of
from local_llms.testing.scripted import ScriptedBackend
from local_llms.types import Message

MARKERS = {"<|user|>": (False, True), "<|mask|>": (True, False), "<|end|>": (True, True), "<|plain|>": (False, False)}
"""Marker → whether it takes the white space in front of it, and behind it."""


class Tokenizer:
    """A vocabulary as a loaded model shows it."""

    def __init__(self, vocabulary: JsonVocabulary) -> None:
        facts = {name: getattr(vocabulary, name) for name in ("special_tokens", "swallows_before", "swallows_after")}
        known = ScriptedBackend().info
        self.info = BackendInfo(
            **{name: getattr(known, name) for name in BackendInfo.__dataclass_fields__ if name not in facts}
            | {"bos_id": None, "adds_bos": False}
            | facts
        )
        self.tokenize = vocabulary.tokenize
        self.tokenize_after = vocabulary.tokenize_after
        self.token_bytes = vocabulary.token_bytes


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """The tokenizer of neox-stories with these markers."""
    spec = json.loads((data / "models" / "neox-stories" / "tokenizer.json").read_text("utf-8"))
    first = 1 + max(entry["id"] for entry in spec["added_tokens"] + [{"id": max(spec["model"]["vocab"].values())}])
    for place, (text, (before, behind)) in enumerate(MARKERS.items()):
        strips = {"lstrip": before, "rstrip": behind, "single_word": False, "normalized": False, "special": True}
        spec["added_tokens"].append({"id": first + place, "content": text, **strips})
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}<|user|>\n{{ m.content }}<|end|>\n{% endfor %}<|plain|>\n",
        "{{ messages[0].content }} <|mask|> {{ messages[0].content }}\n<|plain|>",
        "<|end|> \n <|user|>\n\n<|mask|>{{ messages[0].content }}\n",
        "<|plain|> {{ messages[0].content }} <|plain|>",
    ],
)
@pytest.mark.parametrize("content", ["Once upon a time", "  two spaces, a line\n", "\n"])
def test_ids_are_those_of_the_library(folder: Path, source: str, content: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompt = render(Template(name="t", source=source), [Message("user", content)])
    vocabulary = JsonVocabulary.of(folder)
    ids = library.encode(text_of(prompt), add_special_tokens=False).ids
    assert encode(prompt, Tokenizer(vocabulary)) == ids


SOURCES = (
    "<|plain|>{{ messages[0].content }}<|plain|>{{ messages[0].content }}<|plain|>",
    "{{ messages[0].content }}<|plain|> {{ messages[0].content }}\n<|plain|>",
)


@pytest.mark.parametrize("scheme", ["first", "always", "never", "normalizer"])
@pytest.mark.parametrize("nested", [False, True])
def test_where_a_space_is_put_in_front(data: Path, tmp_path: Path, scheme: str, nested: bool) -> None:
    """At the beginning of the prompt alone, in front of each piece, or nowhere: as the file has it."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    spec = json.loads((data / "models" / "stories260K" / "hf" / "tokenizer.json").read_text("utf-8"))
    if scheme != "normalizer":
        space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
        spec["normalizer"] = None
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [space]} if nested else space
    spec["added_tokens"].append({"id": 512, "content": "<|plain|>", "special": True, "normalized": False}
                                | dict.fromkeys(("lstrip", "rstrip", "single_word"), False))  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(JsonVocabulary.of(tmp_path))
    for source in SOURCES:
        for content in CONTENTS:
            prompt = render(Template(name="t", source=source), [Message("user", content)])
            ids = library.encode(text_of(prompt), add_special_tokens=False).ids
            assert encode(prompt, tokenizer) == ids, (source, content)


CONTENTS = ("Once upon a time", " there was", "", "\n", "  two  spaces ", "a", "Lily\u2581said", "\u4f60\u597d")


@pytest.mark.parametrize("config", [{}, {"legacy": True}, {"legacy": False}, {"add_prefix_space": False}])
def test_a_sentencepiece_model_alone_gives_the_ids_of_transformers(data: Path, tmp_path: Path, config: dict) -> None:
    """On ordinary texts, and behind special tokens where the configuration says how it is done there."""
    library = pytest.importorskip("transformers", reason="transformers is not installed")
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    from transformers.convert_slow_tokenizer import generate_merges

    from tests.chatglm_files import write_pieces

    write_pieces(tmp_path / "tokenizer.model", 400)
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**marks, **config}))
    ours = vocabulary_of(tmp_path)
    # As the library reads such a file itself, which takes one more package.
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    vocab = {pieces.id_to_piece(token): token for token in range(len(pieces))}
    scores = {piece: pieces.get_score(token) for piece, token in vocab.items()}
    theirs = library.LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores), **marks, **config)
    lines = (data / "text" / "self_instruct_252.jsonl").read_text("utf-8").splitlines()[:80]
    for text in [*CONTENTS, *(json.loads(line)["instruction"] for line in lines)]:
        # SentencePiece puts a space in front of one, and the library, unlike it, does not.
        joins = not text.startswith(" ")
        if joins or config.get("add_prefix_space") is False:
            assert ours.tokenize(text) == theirs.encode(text, add_special_tokens=False), text
        # The library takes a model whose configuration says nothing for a new one, which those of 2023 are not.
        if config and (joins or not config.get("legacy")):
            after = theirs.encode("</s>" + text, add_special_tokens=False)[1:]
            assert ours.tokenize_after(text) == after, text


@pytest.mark.parametrize("name", ["stories260K/hf", "neox-stories", "glm-stories"])
def test_texts_have_the_ids_that_the_tokenizers_library_gives(data: Path, name: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    folder = data / "models" / name
    library, ours = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), JsonVocabulary.of(folder)
    lines = (data / "text" / "self_instruct_252.jsonl").read_text("utf-8").splitlines()
    # The corpus writes a marker where a rare word was.
    corpus = (data / "text" / "wikitext2-valid.txt").read_text("utf-8")[:60_000].replace("<unk>", "word")
    texts = [*(json.loads(line)["instruction"] for line in lines), *corpus.split("\n")]
    unknown = library.token_to_id("<unk>")
    for text in texts:
        # What the vocabulary does not have is left out, so that no special token comes of a text.
        ids = [token for token in library.encode(text, add_special_tokens=False).ids if token != unknown]
        assert ours.tokenize(text) == ids, text


@pytest.mark.parametrize("merges", [["a b", "ab c"], [["a", "b"], ["ab", "c"]]])
def test_a_marker_that_merges_would_make(tmp_path: Path, merges: list) -> None:
    """It is a special token of the vocabulary, and text never becomes it: what makes it, or is made of it, goes."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    spec = {
        "version": "1.0",
        "added_tokens": [{"id": 3, "content": "ab", "special": True, "normalized": False}
                         | dict.fromkeys(("lstrip", "rstrip", "single_word"), False)],
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": merges},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    vocabulary = JsonVocabulary.of(tmp_path)
    assert vocabulary.special_tokens == {"ab": 3}
    assert vocabulary.tokenize("abcab") == [0, 1, 2, 0, 1]
