"""``local-llms quantize`` and ``local-llms compare`` on a model with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llms.comparison import process
from local_llms.comparison.measurement import Task
from local_llms.comparison.memory import peak_memory
from local_llms.errors import LocalLLMError
from tests.unit.backends import tiny_gguf
from tests.unit.cli.conftest import Run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def test_quantize_writes_where_the_file_is(run: Run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    result = run("quantize", str(model), "--to", "int8", "-o", str(target))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}\n"
    assert target.stat().st_size < model.stat().st_size
    again = run("quantize", str(model), "--to", "int8", "-o", str(target))
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    assert run("quantize", str(model), "--to", "q4_0", "-o", str(target), "--overwrite").exit_code == 0


def test_quantize_into_the_cache(run: Run, model: Path) -> None:
    result = run("quantize", str(model), "--to", "q4_0")
    assert Path(result.stdout.strip()).name == "tiny-q4_0.gguf"
    listed = run("cache", "list")
    assert "tiny-q4_0" in listed.stdout


def test_quantize_knows_its_forms(run: Run, model: Path) -> None:
    result = run("quantize", str(model), "--to", "q8")
    assert result.exit_code == 1
    assert "Did you mean 'q8_0'" in result.stderr


def test_compare_shows_a_row_for_each_model(run: Run, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.gguf"
    run("quantize", str(model), "--to", "int8", "-o", str(target))
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a cat. " * 20)
    options = ("--text", str(text), "--characters", "300", "--tokens", "4", "--threads", "1")
    result = run("compare", str(model), str(target), *options)
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["model", "type", "size", "memory", "tokens/s", "perplexity", "bits/byte"]
    assert "F32" in first
    assert "Q8_0" in second
    assert float(first.split()[-1]) == pytest.approx(float(second.split()[-1]), rel=0.1)
    assert "300 characters, in passages of 256 that begin 128 apart" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--window", "10", "--stride", "11"), "stride=11"),
        (("--text", "absent.txt"), "absent.txt cannot be read"),
        (("--context-length", "16", "--window", "500"), "the context holds 16"),
    ],
)
def test_compare_says_what_is_wrong(run: Run, model: Path, options: tuple[str, ...], words: str) -> None:
    result = run("compare", str(model), "--threads", "1", *options)
    assert result.exit_code == 1, result.output
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRAM", "local_llms.no_such_program")
    with pytest.raises(LocalLLMError, match=r"measured m\.gguf died \(exit code 1\)"):
        process.measure_apart(Task("m.gguf", "text", 4, 2, 4))


def test_memory_counts_children() -> None:
    import subprocess
    import sys

    alone = peak_memory()
    program = "data = bytearray(200 << 20); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert peak_memory() - alone > 150 << 20
        child.communicate("\n")
