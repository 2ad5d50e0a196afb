"""ChatGLM as a GGUF file: the template of its generation, and the special tokens in front of every prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llms import load_model
from local_llms.about import describe
from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, LoadOptions
from local_llms.prompts import Segment, encode, render
from local_llms.resolve import choose_template
from local_llms.types import Message
from tests.unit.backends.tiny_gguf import write_chatglm

pytest.importorskip("llama_cpp")

SMALL = LoadOptions(context_length=64, cache_tokens=64, max_parallel=1, threads=1)
MASKS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
LATER = ("<|endoftext|>", "[gMASK]", "<sop>", *ROLES)


def opened(path: Path) -> Backend:
    return llama_cpp.load(path, SMALL)


@pytest.mark.parametrize(
    ("markers", "declared", "expected"),
    [
        (MASKS, None, "chatglm2"),
        ((*MASKS, *ROLES), None, "chatglm3"),
        (LATER, None, "glm4"),
        (LATER, "chatglm4", "glm4"),
        (LATER, "ChatGLM4", "glm4"),
        ((*MASKS, *ROLES), "chatglm3", "chatglm3"),
    ],
)
def test_the_generation_tells_the_template(
    tmp_path: Path, markers: tuple[str, ...], declared: str | None, expected: str
) -> None:
    path = write_chatglm(tmp_path / "model.gguf", markers, declared)
    backend = opened(path)
    specials = backend.info.special_tokens
    assert backend.info.prompt_prefix == (specials["[gMASK]"], specials.get("sop", specials.get("<sop>")))
    for family in (None, "glm"):
        chosen = choose_template(None, family, None, backend.info)
        assert chosen is not None
        assert chosen.template.name == expected
        assert describe(path, family=family).template == expected
    plain = backend.tokenize("hi")
    assert encode((Segment("hi", False),), backend) == [*backend.info.prompt_prefix, *plain]
    ids = encode(render(chosen.template, [Message("user", "hi [gMASK]")]), backend)
    assert tuple(ids[:2]) == backend.info.prompt_prefix
    assert ids.count(specials["[gMASK]"]) == 1
    backend.close()


def test_a_template_in_the_file_comes_first_but_for_the_family_class(tmp_path: Path) -> None:
    path = write_chatglm(tmp_path / "model.gguf", LATER, "{{ messages[0].content }}")
    assert describe(path).template == "from-file"
    assert describe(path, family="glm").template == "glm4"
    assert describe(path, family="vicuna").template == "vicuna-v1.1"
    assert describe(path, template="chatglm2").template == "chatglm2"


def test_a_file_without_markers_says_nothing(tmp_path: Path) -> None:
    backend = opened(write_chatglm(tmp_path / "model.gguf", ()))
    assert (backend.info.template, backend.info.prompt_prefix) == (None, ())
    backend.close()


def test_it_answers(tmp_path: Path) -> None:
    path = write_chatglm(tmp_path / "model.gguf", (*MASKS, *ROLES))
    with load_model(path, family="glm", context_length=64, cache_tokens=64, max_parallel=1, threads=1) as model:
        assert model.info.template == "chatglm3"
        assert model.info.template_reason == "a checkpoint of this kind was trained with chatglm3"
        assert len(model.generate("the", max_tokens=4, temperature=0).token_ids) <= 4
