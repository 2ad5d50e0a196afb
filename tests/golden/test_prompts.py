"""Prompts equal to the byte to what the templates' own projects build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_llms.catalog import families
from local_llms.prompts import render_prompt

CASES = {"alpaca": 5, "chatml": 9, "plain": 4, "smollm2": 5, "vicuna-v1.1": 8}
"""How many cases there are of the templates that this package must have."""


@pytest.fixture(scope="module")
def goldens(data: Path) -> list[dict[str, Any]]:
    lines = (data / "prompts" / "goldens.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def known_templates() -> set[str]:
    return {template.name for family in families().values() for template in family.templates}


def test_the_cases_are_there(goldens: list[dict[str, Any]]) -> None:
    counts = {name: sum(golden["template"] == name for golden in goldens) for name in CASES}
    assert counts == CASES
    assert known_templates() >= CASES.keys()


def test_every_known_template_writes_what_its_project_writes(goldens: list[dict[str, Any]]) -> None:
    known = known_templates()
    wrong = []
    for golden in goldens:
        if golden["template"] in known:
            options = {key: golden[key] for key in ("input", "tools", "continue_final_message") if key in golden}
            written = render_prompt(
                golden["template"],
                golden["messages"],
                add_generation_prompt=golden["add_generation_prompt"],
                **options,
            )
            if written != golden["expected"]:
                wrong.append((golden["template"], golden["case"], written, golden["expected"]))
    assert not wrong
