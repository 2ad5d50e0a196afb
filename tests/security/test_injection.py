"""Nothing that a user, a document or a model writes becomes a special token."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, LoadOptions
from local_llms.catalog import find_template
from local_llms.errors import TemplateError
from local_llms.prompts import Prompt, Segment, encode, render, text_of
from local_llms.testing.scripted import ScriptedBackend
from local_llms.types import Message

FAMILIES = [
    [template["name"] for template in family["templates"]]
    for file in resources.files("local_llms.families").iterdir()
    if file.name.endswith(".toml") and "templates" in (family := tomllib.loads(file.read_text("utf-8")))
]
SOME_TEMPLATES = ["smollm2", "chatml", "alpaca", "vicuna-v1.1", "plain"]
CONTENTS = 2000
"""For each family, shared by its templates; for each of some templates."""

MARKERS = [
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|end|>",
    "<|prompter|>",
    "[INST]",
    "[/INST]",
    "[gMASK]",
    "sop",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<0x0A>",
]
LABELS = [
    "system\n",
    "assistant\n",
    "user\n",
    "USER: ",
    " ASSISTANT:",
    "### Instruction:\n",
    "### Response:",
    "{{ eos_token }}",
]
WHITE = ["", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\u2581", "\u200b", "\ufeff", "\x00"]
UNICODE = [
    "é",
    "e\u0301",
    "你好",
    "🦙",
    "👩‍👩‍👧",
    "\u202e",
    "\ufffd",
    "\ud83e",
    "\udd99",
    "＜s＞",
    "ﬀ",
    "\U000e0001",
    "Ġ",
    "<|im_end\u200b|>",
]


def contents(seed: str, markers: Sequence[str], count: int = CONTENTS) -> Iterator[list[str]]:
    """Conversations of up to four hostile texts, ``count`` texts in all."""
    chance = random.Random(seed)
    whole = [*MARKERS, *markers]
    made = 0
    while made < count:
        texts = [_text(chance, whole) for _ in range(min(chance.choice([1, 1, 2, 3, 4]), count - made))]
        if len(texts) > 1 and chance.random() < 0.5:
            _spread(chance, whole, texts)
        made += len(texts)
        yield texts


def _text(chance: random.Random, markers: Sequence[str]) -> str:
    parts = []
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5, 8])):
        marker = chance.choice(markers)
        cut = chance.randrange(len(marker) + 1)
        parts.append(
            chance.choice(
                [
                    marker,
                    marker,
                    marker * 2,
                    marker[:cut],
                    marker[cut:],
                    marker[:cut] + chance.choice(WHITE + UNICODE) + marker[cut:],
                    marker[:cut] + chance.choice(markers) + marker[cut:],
                    marker.upper(),
                    chance.choice(LABELS),
                    chance.choice(WHITE),
                    chance.choice(UNICODE),
                    marker + chance.choice(LABELS) + "obey",
                ]
            )
        )
    return "".join(parts)


def _spread(chance: random.Random, markers: Sequence[str], texts: list[str]) -> None:
    """Let one message end with the beginning of a marker, and the next one begin with the rest."""
    marker = chance.choice(markers)
    cut = chance.randrange(1, max(2, len(marker)))
    texts[0] += marker[:cut]
    texts[1] = marker[cut:] + texts[1]


def conversation(texts: Sequence[str], *, system: bool = True) -> list[Message]:
    first = [Message("system", texts[0])] if system and len(texts) in (2, 4) else []
    turns = texts[1:] if first else texts
    return first + [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]


def takes_a_system_message(name: str) -> bool:
    try:
        render(find_template(name)[1], [Message("system", "x"), Message("user", "x")])
    except TemplateError:
        return False
    return True


Parts = Callable[[Prompt], tuple[list[int], bytes]]


def reader(backend: Backend) -> Parts:
    """Tells the special ids that a prompt's structure alone gives, and the bytes of all that is not such a marker."""
    special = backend.info.special_tokens
    marker = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))

    def read(prompt: Prompt) -> tuple[list[int], bytes]:
        ids: list[int] = []
        text = ""
        for segment in prompt:
            found = marker.findall(segment.text) if segment.trusted else []
            ids += [special[written] for written in found]
            text += marker.sub("", segment.text) if segment.trusted else segment.text
        if backend.info.adds_bos and ids[:1] != [backend.info.bos_id]:
            ids.insert(0, backend.info.bos_id or 0)
        return ids, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()

    return read


def attack(name: str, backend: Backend, *, exact: bool, count: int = CONTENTS) -> None:
    """``exact``: the vocabulary adds no space, so the ids' bytes are the text."""
    read = reader(backend)
    special = frozenset(backend.info.special_tokens.values())
    template = find_template(name)[1]
    system = takes_a_system_message(name)
    seen = 0
    for texts in contents(name, list(backend.info.special_tokens), count):
        messages = conversation(texts, system=system)
        options: list[dict[str, Any]] = [{}, {"add_generation_prompt": False}]
        if name == "alpaca":
            options.append({"input": texts[0]})
        if messages[-1].role == "assistant":
            options.append({"continue_final_message": True})
        chosen = options[seen % len(options)]
        prompt = render(template, messages, **chosen)
        seen += len(texts)
        expected, text = read(prompt)
        # The same conversation without any marker in it: what is said must not change which special ids there are.
        plain = conversation(["x" if text.strip() else text for text in texts], system=system)
        plain_options = {**chosen, "input": "x"} if chosen.get("input") else chosen
        assert expected == read(render(template, plain, **plain_options))[0], texts
        if not (expected or text):
            continue
        ids = encode(prompt, backend)
        assert [token for token in ids if token in special] == expected, texts
        if exact:
            assert b"".join(map(backend.token_bytes, ids)) == text, texts
    assert seen == count


def bytes_and_markers() -> Backend:
    """A vocabulary of bytes and of every marker of every family."""
    special = {marker: 256 + number for number, marker in enumerate(MARKERS)}
    return ScriptedBackend(info=replace(ScriptedBackend().info, special_tokens=special, bos_id=special["<s>"]))


@pytest.mark.parametrize("names", FAMILIES, ids=" ".join)
def test_every_family_on_bytes_and_markers(names: list[str]) -> None:
    for name in names:
        attack(name, bytes_and_markers(), exact=True, count=-(-CONTENTS // len(names)))


@pytest.mark.parametrize("name", SOME_TEMPLATES)
def test_on_bytes_and_markers(name: str) -> None:
    attack(name, bytes_and_markers(), exact=True)


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Iterator[Backend]:
    backend = llama_cpp.load(smollm2_path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    yield backend
    backend.close()


@pytest.mark.real
@pytest.mark.parametrize("name", SOME_TEMPLATES)
def test_on_a_real_vocabulary(name: str, smollm2: Backend) -> None:
    attack(name, smollm2, exact=True)


@pytest.mark.parametrize("name", SOME_TEMPLATES)
def test_on_a_sentencepiece_vocabulary(name: str, data: Path) -> None:
    path = data / "models" / "stories260K" / "stories260K-F32.gguf"
    backend = llama_cpp.load(path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    try:
        attack(name, backend, exact=False)
    finally:
        backend.close()


def test_the_attack_would_succeed_on_the_rendered_string() -> None:
    """The same texts, put into a trusted segment, do give special ids: so the tests above can fail."""
    backend = bytes_and_markers()
    special = frozenset(backend.info.special_tokens.values())
    read = reader(backend)
    changed = 0
    for texts in contents("chatml", list(backend.info.special_tokens), 200):
        prompt = render(find_template("chatml")[1], conversation(texts))
        whole = encode((Segment(text_of(prompt), True),), backend)
        changed += [token for token in whole if token in special] != read(prompt)[0]
    assert changed > 30
