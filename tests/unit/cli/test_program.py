"""How the program ends: no traceback, whatever its streams are and whenever Ctrl-C comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "from local_llms.cli.program import main\nmain()\n"


def run(*arguments: str, shell: str = "", before: str = "", **variables: str) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own; ``shell`` is what a shell does with its streams."""
    command = [sys.executable, "-c", before + PROGRAM, *arguments]
    environment = {**os.environ, **variables}
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, timeout=120)


def test_a_full_disk_is_one_line() -> None:
    done = run("list", shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == ["Error: Reading or writing failed: No space left on device."]


def test_a_full_disk_is_noticed_at_the_end_too() -> None:
    # So little that Python writes it when the program ends.
    done = run("--version", shell="> /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: ")
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    done = run("list", shell="| head -c 1")
    assert done.stderr == b""


def test_a_closed_standard_output() -> None:
    assert run("template", "chatml", "Hello!", shell=">&-").returncode == 0


@pytest.mark.parametrize("arguments", [("chat", "no-such-model.gguf"), ("complete", "-", "-m", "no-such-model.gguf")])
def test_a_closed_standard_input(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, shell="<&-")
    assert done.returncode == 1
    assert done.stderr.decode().startswith("Error: There is no file no-such-model.gguf.")


def test_an_encoding_without_the_characters_loses_none() -> None:
    done = run("template", "chatml", "Grüße, 你好", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0
    assert "Grüße, \\u4f60\\u597d" in done.stdout.decode("latin-1")


def test_standard_input_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('[{"role": "user", "content": "Grüße"}]'.encode("latin-1"))
    done = run("template", "chatml", "--messages", "-", shell=f'< "{path}"', PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 0
    assert "Gr\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}e" in done.stdout.decode()


@pytest.mark.parametrize(
    "module", ["typer", "local_llms.cli.main", "local_llms.cli.models_table", "local_llms.catalog"]
)
def test_ctrl_c_while_the_program_is_being_imported(module: str) -> None:
    interrupt = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
    )
    done = run("list", before=interrupt)
    assert done.returncode == 130
    assert done.stderr.decode().strip() in ("Stopped.", "")
    assert done.stdout == b""


def test_a_module_in_the_current_folder_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from local_llms.comparison.measurement import Task
    from local_llms.comparison.process import measure_apart
    from local_llms.errors import LocalLLMError

    (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalLLMError, match=r"There is no file no-such-model\.gguf"):
        measure_apart(Task("no-such-model.gguf", "a text", window=6, stride=6, tokens=1))
