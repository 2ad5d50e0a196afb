"""Every example runs, on the real models, and shows what it promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.real


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(name: str) -> Any:
    return load(name).main()


def test_streaming_chain(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run("streaming_chain")
    shown = capsys.readouterr().out
    assert "light" in answer.lower()
    assert shown.startswith(answer)
    assert "tokens/s" in shown


def test_many_questions(capsys: pytest.CaptureFixture[str]) -> None:
    batched, streamed = run("many_questions")
    assert len(batched) == len(streamed) == len(load("many_questions").QUESTIONS)
    assert all(len(answer) > 20 for answer in [*batched, *streamed])
    assert len(set(batched)) == len(batched)


def test_rag_with_llama_index(capsys: pytest.CaptureFixture[str]) -> None:
    answer, sources = run("rag_llama_index")
    assert sources[0] == "pass.txt"
    # What a model of this size makes of the passages is its own affair; that they reached it is seen in the answer.
    assert "pass" in answer.lower()


def test_rag_with_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    answer, sources = run("rag_langchain")
    assert sources[0] == "lighthouse.txt"
    assert "green" in answer.lower()


def test_one_model_for_both_frameworks(capsys: pytest.CaptureFixture[str]) -> None:
    stats = run("one_model_two_frameworks")
    # Both answers are counted by one engine, and were computed in fewer steps than tokens: together.
    assert stats.finished >= 2
    assert stats.steps < stats.completion_tokens


def test_an_agent_of_langchain(capsys: pytest.CaptureFixture[str]) -> None:
    messages = run("agent_langchain")
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[1].tool_calls[0]["name"] == "price"
    assert messages[-1].text


# llama-index looks through all attributes of an agent, pydantic's deprecated ones too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_agent_of_llama_index(capsys: pytest.CaptureFixture[str]) -> None:
    answer, calls = run("agent_llama_index")
    assert calls[0].tool_name == "price"
    assert answer


def test_extraction(capsys: pytest.CaptureFixture[str]) -> None:
    people = run("extraction")
    module = load("extraction")
    assert len(people) == len(module.TEXTS) == 20
    # All are valid; a model of this size reads most of them right.
    right = sum(
        person.name in text and str(person.age) in text for person, text in zip(people, module.TEXTS, strict=True)
    )
    assert right >= 14


def test_a_router(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = run("router")
    assert set(chosen.values()) <= set(load("router").TOPICS)
    assert len(chosen) == 3


def test_a_graph_with_parallel_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    views, stats = run("parallel_graph")
    assert len(views) == 3
    assert stats.steps < stats.completion_tokens


def test_memory_with_summarization(capsys: pytest.CaptureFixture[str]) -> None:
    messages = run("memory")
    assert len(messages) < 2 * len(load("memory").TURNS)
    assert "summary" in messages[0].text.lower()


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.stem}")' in text
