"""Ids of ordinary prompts are those of the whole rendered string, as llama.cpp itself tokenizes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import LoadOptions
from local_llms.catalog import find_template
from local_llms.prompts import Prompt, encode, render, text_of
from local_llms.types import Message
from tests.unit.backends.tiny_gguf import write_llama

TEMPLATES = ["smollm2", "chatml", "alpaca", "vicuna-v1.1", "plain"]
CONVERSATIONS = [
    [Message("user", "Name three primary colours.")],
    [Message("system", "Be brief. "), Message("user", "  leading, trailing  \n"), Message("assistant", "Yes.")],
    [Message("user", "a"), Message("assistant", "b\n\n\nc"), Message("user", "请用一句话介绍长城。 🦙👩‍👩‍👧")],
    [Message("user", "def f(x):\n\treturn [x, {'a': 1}]  # 100 %"), Message("assistant", "It's 'ok' <br>\r\n")],
    [Message("user", "word " * 600)],
]

Whole = Callable[[str], list[int]]


def load_whole(path: Path) -> tuple[Whole, Callable[[], None]]:
    """llama.cpp's own ids of a string with markers in it, BOS by the model's policy; and how to free the vocabulary."""
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), parameters)
    assert model
    vocab = lib.llama_model_get_vocab(model)

    def whole(text: str) -> list[int]:
        data = text.encode()
        ids = (lib.llama_token * (len(data) + 8))()
        count = lib.llama_tokenize(vocab, data, len(data), ids, len(ids), True, True)
        assert count >= 0
        return list(ids[:count])

    return whole, lambda: lib.llama_model_free(model)


def check(path: Path, folder: Path) -> None:
    backend = llama_cpp.load(path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    whole, free = load_whole(path)
    try:
        for prompt in prompts(folder):
            assert encode(prompt, backend) == whole(text_of(prompt))
    finally:
        free()
        backend.close()


def prompts(folder: Path) -> Iterator[Prompt]:
    questions = (folder / "text" / "vicuna_bench.jsonl").read_text("utf-8").splitlines()
    asked = [json.loads(line) for line in questions]
    texts = [str(question.get("prompt") or question.get("text") or question["turns"][0]) for question in asked]
    conversations = [*CONVERSATIONS, *([Message("user", text)] for text in texts)]
    for name in TEMPLATES:
        template = find_template(name)[1]
        for messages in conversations:
            yield render(template, messages)
            yield render(template, messages, add_generation_prompt=False)
            if messages[-1].role == "assistant":
                yield render(template, messages, continue_final_message=True)
    yield render(find_template("alpaca")[1], [Message("user", "Translate.")], input="Guten Tag")


PHI = ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>")


def test_markers_that_swallow_the_white_space_behind_them(tmp_path: Path) -> None:
    """Phi-3's do: llama.cpp knows it by the model's name. The line break of the template and what follows it go."""
    path = write_llama(tmp_path / "phi.gguf", PHI, name="Phi-3 mini")
    backend = llama_cpp.load(path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    whole, free = load_whole(path)
    template = find_template("phi-3")[1]
    try:
        markers = backend.info.special_tokens
        assert backend.info.swallows_after == {markers[text] for text in (*PHI[:4], "</s>", "<tool>")}
        assert backend.info.swallows_before == frozenset()
        for messages in CONVERSATIONS:
            prompt = render(template, messages)
            # llama.cpp puts a second BOS in front of the template's.
            assert encode(prompt, backend) == whole(text_of(prompt).removeprefix("<s>"))
        user, end, assistant = (markers[text] for text in ("<|user|>", "<|end|>", "<|assistant|>"))
        ids = encode(render(template, [Message("user", " \n the")]), backend)
        assert ids == [markers["<s>"], user, *backend.tokenize("the"), end, assistant]
    finally:
        free()
        backend.close()


@pytest.mark.real
def test_a_byte_level_vocabulary(smollm2_path: Path, data: Path) -> None:
    check(smollm2_path, data)


def test_a_sentencepiece_vocabulary_that_adds_bos(data: Path) -> None:
    check(data / "models" / "stories260K" / "stories260K-F32.gguf", data)


def test_a_byte_level_vocabulary_that_adds_bos(data: Path) -> None:
    check(data / "models" / "neox-stories" / "neox-stories-F32.gguf", data)


def test_markers_become_tokens_and_bos_stands_once(data: Path) -> None:
    backend = llama_cpp.load(
        data / "models" / "stories260K" / "stories260K-F32.gguf",
        LoadOptions(context_length=64, cache_tokens=64, max_parallel=1),
    )
    try:
        ids = encode(render(find_template("vicuna-v1.1")[1], CONVERSATIONS[2]), backend)
        assert ids.count(backend.info.special_tokens["</s>"]) == 1
        assert ids[0] == backend.info.bos_id
        assert ids.count(backend.info.bos_id) == 1
    finally:
        backend.close()
