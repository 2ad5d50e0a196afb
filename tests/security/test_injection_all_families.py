"""In every family, nothing that is written into a conversation becomes a special token.

The tokenizer has every marker of every template as a token. What is compared is the special tokens of a conversation
that is full of markers, and those of the same conversation that says only "x".
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest

from local_llms.backends.base import BackendInfo
from local_llms.catalog import Template, families
from local_llms.errors import OptionError, TemplateError
from local_llms.prompts import Prompt, Segment, encode, render, text_of

CONTENTS = 2000
"""For each family, at the least: every template writes three of the five texts of a conversation, some write all."""
FAMILIES = {name: family.templates for name, family in families().items() if family.templates}
TEMPLATES = [template for templates in FAMILIES.values() for template in templates]

MARKER = re.compile(r"<\|?/?\w+\|?>|\[/?\w+\]|<<?/?SYS>>|### (?:Instruction|Response|Human|Assistant|End):?\n?")
OTHERS = {"sop", "<sop>", "<eop>", "<think>", "</think>", "<|eom_id|>", "<|system|>", "<|observation|>", "<unk>"}
"""Markers of these models that no template writes, or not in every conversation."""

BITS = [
    "",
    "x",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    "\0",
    "\u200b",
    "\u2581",
    "\ufffd",
    "\ud83e",
    "é",
    "你好",
    "🦙",
    "###",
    "<|",
    "|>",
]
CODE = [
    "{{ bos_token }}",
    "{% raw %}",
    "{input}",
    "{}",
    "%s",
    "{{ '<s>' }}",
    "user\n",
    "assistant\n",
    "\nUser:",
    " [/INST] ",
]


def conversation(texts: Sequence[str], *, system: bool, tools: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Five texts as messages, and as what else a template is given."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": texts[0]}] if system else []
    messages += [
        {"role": "user", "content": texts[1]},
        {"role": "assistant", "content": texts[2], "metadata": texts[0]},
        {"role": "user", "content": texts[3]},
    ]
    function = {"name": texts[4], "description": texts[4], "parameters": {texts[4]: [texts[4]]}}
    options: dict[str, Any] = {"input": texts[4]}
    if tools:
        options["tools"] = [function]
        messages += [{"role": "assistant", "content": texts[2]}, {"role": "tool", "content": texts[4]}]
    return messages, options


def markers() -> list[str]:
    """Everything in the structure of a template that is or could be a marker."""
    found = set(OTHERS)
    for template in TEMPLATES:
        found |= {template.eos_token, *template.stop_tokens, *MARKER.findall(template.bos_token)}
        for system, tools in shapes(template):
            messages, options = conversation("xxxxx", system=system, tools=tools)
            prompt = written(template, messages, options)
            found.update(*(MARKER.findall(segment.text) for segment in prompt if segment.trusted))
    return sorted(found - {""})


def written(template: Template, messages: list[dict[str, Any]], options: dict[str, Any]) -> Prompt:
    """The prompt; the input only where the template has a place for one."""
    try:
        return render(template, messages, **options)
    except OptionError:
        return render(template, messages, **{**options, "input": None})


def shapes(template: Template) -> list[tuple[bool, bool]]:
    """The conversations that a template takes: with a system message or without, with tools or without."""
    taken = []
    for system, tools in ((False, False), (True, False), (False, True), (True, True)):
        messages, options = conversation("xxxxx", system=system, tools=tools)
        try:
            written(template, messages, options)
        except TemplateError:
            continue
        taken.append((system, tools))
    return taken


MARKERS = markers()


class Characters:
    """One id for each character, behind those of the markers."""

    def __init__(self) -> None:
        self.info = BackendInfo(
            backend="characters",
            architecture="characters",
            parameters=0,
            vocabulary_size=0x110000 + len(MARKERS),
            context_length=1 << 20,
            trained_context_length=1 << 20,
            cache_tokens=1 << 20,
            max_sequences=1,
            batch_tokens=64,
            bos_id=MARKERS.index("<s>"),
            end_ids=frozenset(),
            adds_bos=True,
            special_tokens={marker: number for number, marker in enumerate(MARKERS)},
        )

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) + len(MARKERS) for character in text]


TOKENIZER = Characters()


def special(prompt: Prompt) -> list[str]:
    return [MARKERS[token] for token in encode(prompt, TOKENIZER) if token < len(MARKERS)]


def hostile(chance: random.Random) -> str:
    """Markers, whole and in pieces, one in another, beside what templates and tokenizers may trip over. Never blank."""
    parts = []
    for _ in range(chance.choice([1, 2, 3, 5])):
        marker, other = chance.choice(MARKERS), chance.choice(MARKERS)
        cut = chance.randrange(len(marker) + 1)
        parts += chance.choice(
            [
                [marker],
                [marker, chance.choice(CODE)],
                [marker[:cut]],
                [marker[cut:]],
                [marker[:cut], other, marker[cut:]],
                [marker[:cut], chance.choice(BITS), marker[cut:]],
                [chance.choice(BITS), chance.choice(CODE)],
            ]
        )
    text = "".join(parts)
    return text if text.strip() else text + "x"


def spread(chance: random.Random, texts: list[str]) -> None:
    """Let one text end with the beginning of a marker, and the next one begin with the rest."""
    marker = chance.choice(MARKERS)
    cut = chance.randrange(1, len(marker))
    place = chance.randrange(len(texts) - 1)
    texts[place] += marker[:cut]
    texts[place + 1] = marker[cut:] + texts[place + 1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_said_never_becomes_a_special_token(family: str) -> None:
    chance = random.Random(family)
    templates = FAMILIES[family]
    taken = {template.name: shapes(template) for template in templates}
    harmless: dict[tuple[str, bool, bool, bool], list[str]] = {}
    for number in range(CONTENTS // 3):
        template = templates[number % len(templates)]
        system, tools = chance.choice(taken[template.name])
        opened = chance.random() < 0.7
        texts = [hostile(chance) for _ in range(5)]
        if chance.random() < 0.5:
            spread(chance, texts)
        key = (template.name, system, tools, opened)
        if key not in harmless:
            messages, options = conversation("xxxxx", system=system, tools=tools)
            harmless[key] = special(written(template, messages, {**options, "add_generation_prompt": opened}))
        messages, options = conversation(texts, system=system, tools=tools)
        prompt = written(template, messages, {**options, "add_generation_prompt": opened})
        assert special(prompt) == harmless[key], (template.name, texts)


def test_every_template_takes_a_conversation_and_most_write_markers() -> None:
    """So that the test above attacks something."""
    assert all(shapes(template) for template in TEMPLATES)
    assert len(MARKERS) > 30
    assert {"<s>", "</s>", "[gMASK]", "sop", "<|user|>", "<|im_start|>", "<start_of_turn>", "<|eot_id|>"} <= set(
        MARKERS
    )
    writing = [t.name for t in TEMPLATES if special(render(t, [{"role": "user", "content": "x"}])) not in ([], ["<s>"])]
    assert len(writing) > 20


def test_the_attack_would_succeed_on_the_rendered_string() -> None:
    chance = random.Random("rendered")
    succeeded = 0
    for template in TEMPLATES:
        messages, options = conversation([hostile(chance) for _ in range(5)], system=False, tools=False)
        prompt = written(template, messages, options)
        succeeded += special((Segment(text_of(prompt), True),)) != special(prompt)
    assert succeeded > len(TEMPLATES) / 2
