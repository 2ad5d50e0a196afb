"""Nothing that a user, a document or a model writes becomes a special token."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from local_llms.backends import llama_cpp
from local_llms.backends.base import Backend, LoadOptions
from local_llms.catalog import find_template
from local_llms.prompts import Prompt, Segment, encode, render, text_of
from local_llms.testing.scripted import ScriptedBackend
from local_llms.types import Message

TEMPLATES = ["smollm2", "chatml", "alpaca", "vicuna-v1.1", "plain"]
CONTENTS = 2000

MARKERS = [
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<bos>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "[gMASK]",
    "<|user|>",
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


def conversation(texts: Sequence[str]) -> list[Message]:
    first = [Message("system", texts[0])] if len(texts) in (2, 4) else []
    turns = texts[1:] if first else texts
    return first + [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(turns)]


def harmless(prompt: Prompt, backend: Backend) -> tuple[list[int], bytes]:
    """The special ids that structure alone gives, and the bytes of all that is not such a marker."""
    ids: list[int] = []
    text = ""
    for segment in prompt:
        left = segment.text
        while segment.trusted and left:
            marker = next(filter(left.startswith, sorted(backend.info.special_tokens, key=len, reverse=True)), "")
            if marker:
                ids.append(backend.info.special_tokens[marker])
            else:
                text += left[0]
            left = left[len(marker) or 1 :]
        text += left
    if backend.info.adds_bos and ids[:1] != [backend.info.bos_id]:
        ids.insert(0, backend.info.bos_id or 0)
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return ids, whole


def attack(name: str, backend: Backend, *, exact: bool) -> None:
    """``exact``: the vocabulary adds no space, so the ids' bytes are the text."""
    special = frozenset(backend.info.special_tokens.values())
    template = find_template(name)[1]
    seen = 0
    for texts in contents(name, list(backend.info.special_tokens)):
        messages = conversation(texts)
        options: list[dict[str, Any]] = [{}, {"add_generation_prompt": False}]
        if name == "alpaca":
            options.append({"input": texts[0]})
        if messages[-1].role == "assistant":
            options.append({"continue_final_message": True})
        chosen = options[seen % len(options)]
        prompt = render(template, messages, **chosen)
        seen += len(texts)
        expected, text = harmless(prompt, backend)
        # The same conversation without any marker in it: what is said must not change which special ids there are.
        plain = conversation(["x" if text else "" for text in texts])
        plain_options = {**chosen, "input": "x"} if chosen.get("input") else chosen
        assert expected == harmless(render(template, plain, **plain_options), backend)[0], texts
        if not (expected or text):
            continue
        ids = encode(prompt, backend)
        assert [token for token in ids if token in special] == expected, texts
        if exact:
            assert b"".join(map(backend.token_bytes, ids)) == text, texts
    assert seen == CONTENTS


@pytest.mark.parametrize("name", TEMPLATES)
def test_on_bytes_and_markers(name: str) -> None:
    attack(name, ScriptedBackend(), exact=True)


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Iterator[Backend]:
    backend = llama_cpp.load(smollm2_path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    yield backend
    backend.close()


@pytest.mark.real
@pytest.mark.parametrize("name", TEMPLATES)
def test_on_a_real_vocabulary(name: str, smollm2: Backend) -> None:
    attack(name, smollm2, exact=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_on_a_sentencepiece_vocabulary(name: str, data: Path) -> None:
    path = data / "models" / "stories260K" / "stories260K-F32.gguf"
    backend = llama_cpp.load(path, LoadOptions(context_length=64, cache_tokens=64, max_parallel=1))
    try:
        attack(name, backend, exact=False)
    finally:
        backend.close()


def test_the_attack_would_succeed_on_the_rendered_string() -> None:
    """The same texts, put into a trusted segment, do give special ids: so the tests above can fail."""
    backend = ScriptedBackend()
    special = frozenset(backend.info.special_tokens.values())
    changed = 0
    for texts in contents("chatml", list(backend.info.special_tokens), 200):
        prompt = render(find_template("chatml")[1], conversation(texts))
        whole = encode((Segment(text_of(prompt), True),), backend)
        changed += [token for token in whole if token in special] != harmless(prompt, backend)[0]
    assert changed > 30
