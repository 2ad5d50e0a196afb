"""The commands on a scripted model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from rich.console import Console

from local_llms.cli.bench import Runner
from local_llms.cli.console import columns, count_text, size_text, visible
from local_llms.models import load_model
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import ScriptedModel, scripted_model
from tests.unit.cli.conftest import Run

ANSWER = "Hello there!"


class Listener:
    """A script that says one thing, and notes the text of every prompt."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self._say = say(ANSWER)

    def __call__(self, tokens: Sequence[int]) -> int:
        token = self._say(tokens)
        if token == ord(ANSWER[0]):
            self.prompts.append(bytes(number for number in tokens if number < 256).decode())
        return token


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def model(listener: Listener) -> Iterator[ScriptedModel]:
    with scripted_model(lambda: ScriptedBackend(listener, context_length=4096)) as made:
        yield made


def test_complete_writes_the_answer_and_nothing_else(run: Run, model: ScriptedModel) -> None:
    result = run("complete", "Hi", "--model", model.path)
    assert result.exit_code == 0, result.output
    assert result.stdout == "Hello there!\n"
    assert result.stderr == ""


def test_complete_reads_standard_input(run: Run, model: ScriptedModel, listener: Listener) -> None:
    result = run("complete", "-", "--model", model.path, "--template", "plain", input="From a pipe")
    assert result.stdout == "Hello there!\n"
    assert listener.prompts == ["From a pipe"]


def test_complete_with_options_and_figures(run: Run, model: ScriptedModel) -> None:
    result = run("complete", "Hi", "--model", model.path, "--max-tokens", "5", "--figures")
    assert result.stdout == "Hello\n"
    assert "5 answer tokens" in result.stderr


def test_complete_shows_no_control_characters(run: Run) -> None:
    with scripted_model(ScriptedBackend(say("a\x1b[2Jb\x07c"))) as model:
        result = run("complete", "Hi", "--model", model.path)
    assert result.stdout == "a\ufffd[2Jb\ufffdc\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("complete", "", "--model", "{model}"), "no text"),
        (("complete", "Hi", "--model", "{model}", "--max-tokens", "0"), "max_tokens=0"),
        (("complete", "Hi", "--model", "{model}", "--temperature", "-1"), "temperature=-1"),
        (("complete", "Hi", "--model", "{model}", "--template", "chatmll"), "'chatml'"),
        (("complete", "Hi", "--model", "{model}", "--backend", "lama_cpp"), "'llama_cpp'"),
        (("complete", "word " * 2000, "--model", "{model}"), "the context holds 4096"),
        (("complete", "Hi", "--model", "smolm2-135m-instruct"), "'smollm2-135m-instruct'"),
        (("complete", "Hi", "--model", "no/such.gguf"), "no/such.gguf"),
        (("chat", "no/such.gguf"), "no/such.gguf"),
        (("info", "no/such.gguf"), "no/such.gguf"),
        (("info", "smolm2-135m-instruct"), "'smollm2-135m-instruct'"),
        (("list", "--family", "smolm2"), "'smollm2'"),
        (("list", "--commercial-use", "ye"), "'yes'"),
    ],
)
def test_mistakes_are_one_line(run: Run, model: ScriptedModel, arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*(argument.replace("{model}", model.path) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert sentence in result.stderr


def test_chat_answers_piped_lines(run: Run, model: ScriptedModel, listener: Listener) -> None:
    result = run("chat", model.path, input="First\n\nSecond\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Hello there!\nHello there!\n"
    _, prompt = listener.prompts
    assert prompt.index("First") < prompt.index("Hello there!") < prompt.index("Second")


def test_chat_resets_and_exits(run: Run, model: ScriptedModel, listener: Listener) -> None:
    result = run("chat", model.path, "--system", "Be kind.", input="First\n/reset\nSecond\n/exit\nThird\n")
    assert result.exit_code == 0
    assert result.stdout.count("Hello there!") == 2
    first, second = listener.prompts
    assert "First" not in second
    assert "Be kind." in first
    assert "Be kind." in second


def test_chat_knows_its_commands(run: Run, model: ScriptedModel) -> None:
    result = run("chat", model.path, input="/rest\n")
    assert result.stdout == ""
    assert "/reset" in result.stderr


def test_chat_without_a_line_ends(run: Run, model: ScriptedModel) -> None:
    result = run("chat", model.path, input="")
    assert result.exit_code == 0
    assert result.stdout == ""


def test_list_shows_the_catalog(run: Run) -> None:
    result = run("list")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("smollm2-135m-instruct"))
    for part in ("*", "smollm2", "text", "135M", "98 MB", "Apache-2.0", "yes", "no"):
        assert part in line
    assert "vectors" in result.stdout


def test_list_by_family(run: Run) -> None:
    assert "all-minilm-l6-v2" not in run("list", "--family", "smollm2").stdout
    assert "smollm2-135m-instruct" not in run("list", "--commercial-use", "no").stdout


def test_list_of_nothing(run: Run) -> None:
    result = run("list", "--family", "minilm", "--commercial-use", "no")
    assert (result.exit_code, result.stdout) == (0, "The catalog has no such model.\n")


def test_a_narrow_terminal_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"model": "a-name-of-a-model-7b", "family": "Spare", "licence": "A licence of many words", "here": "no"}]
    for width in (40, 200):
        console = Console(width=width)
        monkeypatch.setattr("local_llms.cli.console.out", lambda console=console: console)
        with console.capture() as capture:
            console.print(columns(rows, spare=["family"]))
        shown = capture.get()
        assert {*rows[0]["model"].split(), *rows[0]["licence"].split(), "no"} <= set(shown.split())
        assert ("Spare" in shown) == (width == 200)


def test_info_of_a_model_that_is_not_here(run: Run) -> None:
    result = run("info", "smollm2-135m-instruct")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "the first use fetches 93 MB" in text
    assert "smollm2: the catalog says so" in text
    assert "Apache-2.0" in text


def test_info_names_the_backend_and_why(run: Run, model: ScriptedModel) -> None:
    result = run("info", model.path, "--template", "alpaca")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "scripted: the file is a scripted model" in text
    assert "alpaca: template='alpaca' was given" in text
    assert not model.backends, "info loaded the model"


def test_bench_shows_medians(run: Run) -> None:
    with scripted_model(lambda: ScriptedBackend(context_length=2048, cache_tokens=8192)) as model:
        result = run("bench", model.path, "--parallel", "3", "--tokens", "4", "--repeat", "2")
    assert result.exit_code == 0, result.output
    for name in ("first token", "1 stream", "3 streams", "first token, seen prefix"):
        assert name in result.stdout


def test_bench_reuses_only_the_long_prefix() -> None:
    made = scripted_model(ScriptedBackend(context_length=2048, cache_tokens=8192), template="plain")
    with made as model, load_model(model) as loaded:
        runner = Runner(loaded, tokens=4)
        runner.answers(3)
        assert loaded.stats().cached_prompt_tokens < 10
        cold, warm = runner.prefix()
    assert cold.usage.cached_prompt_tokens < 10
    assert warm.usage.cached_prompt_tokens >= 0.9 * warm.usage.prompt_tokens
    assert cold.usage.prompt_tokens > 900


def test_bench_refuses_embedding_models(run: Run) -> None:
    backend = ScriptedBackend()
    backend.tell(can_generate=False)
    with scripted_model(backend) as model:
        result = run("bench", model.path)
    assert result.exit_code == 1
    assert "makes embeddings" in result.stderr


def test_texts() -> None:
    assert size_text(None) == "unknown"
    assert size_text(512) == "512 bytes"
    assert size_text(98_362_432) == "98 MB"
    assert size_text(4_100_000_000) == "4.1 GB"
    assert count_text(0) == "unknown"
    assert count_text(134_515_008) == "135M"
    assert count_text(260_032) == "260K"
    assert count_text(6_738_415_616) == "6.74B"
    assert visible("a\tb\nc\x1b\x9b\r") == "a\tb\nc\ufffd\ufffd\ufffd"
