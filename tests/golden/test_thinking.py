"""Prompts of models that think, as the original templates write them: switched on and off, with earlier thoughts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_llms.catalog import families
from local_llms.prompts import render_prompt

FILE = Path(__file__).with_name("thinking.jsonl")
GOLDENS = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
OPTIONS = ("tools", "add_generation_prompt", "thinking")


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: f"{golden['template']}-{golden['case']}")
def test_text_is_equal_to_the_byte(golden: dict[str, Any]) -> None:
    options = {name: golden[name] for name in OPTIONS if name in golden}
    assert render_prompt(golden["template"], golden["messages"], **options) == golden["expected"]


def test_every_template_that_thinks_has_goldens() -> None:
    thinking = {template.name for family in families().values() for template in family.templates if template.thinking}
    assert thinking == {golden["template"] for golden in GOLDENS}
