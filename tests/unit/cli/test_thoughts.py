"""What a model thinks goes to standard error, the answer to standard output."""

from __future__ import annotations

from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from tests.unit.cli.conftest import Run

SAID = "<think>\nHm,\x1b[2J é.\n</think>\n\nSo."


def test_complete(run: Run) -> None:
    with scripted_model(lambda: ScriptedBackend(say(SAID), context_length=2048), template="qwen3") as model:
        result = run("complete", "Why?", "--model", model.path, "--temperature", "0")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "So.\n", "Hm,\ufffd[2J é.\n")
        result = run("complete", "Why?", "--model", model.path, "--thinking", "--max-tokens", "12")
    assert result.stdout == ""
    assert result.stderr.startswith("Hm")


def test_chat(run: Run) -> None:
    with scripted_model(lambda: ScriptedBackend(say(SAID), context_length=2048), template="qwen3") as model:
        result = run("chat", model.path, "--temperature", "0", input="Why?\nAnd?\n")
    assert (result.exit_code, result.stdout) == (0, "So.\nSo.\n")
    assert result.stderr.count("é.") == 2


def test_to_think_with_a_model_that_does_not(run: Run) -> None:
    with scripted_model(lambda: ScriptedBackend(say(SAID)), template="vicuna-v1.1") as model:
        result = run("complete", "Why?", "--model", model.path, "--thinking")
    assert result.exit_code == 1
    assert "do not think" in result.stderr


def test_a_template_with_and_without_a_thought(run: Run) -> None:
    assert run("template", "qwen3", "Why?", "--no-thinking", "--text").stdout.endswith("<think>\n\n</think>\n\n")
    assert run("template", "qwen3", "Why?", "--text").stdout.endswith("<|im_start|>assistant\n")
    assert run("template", "rwkv-g1", "Why?", "--thinking", "--text").stdout.endswith("Assistant: <think")


def test_info_tells_which_models_think(run: Run) -> None:
    assert "before it answers" in run("info", "qwen3-0.6b").stdout
    assert "before it answers" not in run("info", "smollm2-135m-instruct").stdout
