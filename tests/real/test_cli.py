"""The command as a program, on the real models."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_llms.models import load_model

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from local_llms.cli.program import main; main()"]

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", autouse=True)
def _models_are_here(home: Path) -> None:
    for name in (None, "all-minilm-l6-v2"):
        load_model(name).close()


def run(
    *arguments: str, input: str | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    # What is cached is enough: no command may need the network.
    offline = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160", **(env or {})}
    return subprocess.run(
        [*PROGRAM, *arguments], input=input, env={**os.environ, **offline}, cwd=ROOT,
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def test_demo_answers_through_both_frameworks() -> None:
    done = run("demo", "--max-tokens", "40")
    assert done.returncode == 0, done.stderr
    chain, documents = done.stdout.split("Questions about documents")
    assert "smollm2-135m-instruct" in chain
    assert re.search(r"\d+ answer tokens, first token after [\d.]+ s, [\d.]+ tokens/s", chain)
    assert re.search(r"Indexed 2\d documents as \d+ chunks", documents)
    assert re.search(r"0\.\d{3}\s+pass\.txt:", documents)
    assert re.search(r"\d+ prompt tokens.* tokens/s", documents)
    assert done.stderr == ""


def test_demo_reads_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "boat.txt").write_text("The boat to Elmsea island leaves at nine in the morning.", "utf-8")
    (tmp_path / "museum.txt").write_text("The museum is closed on Mondays.", "utf-8")
    done = run("demo", str(tmp_path), "-q", "When does the boat to the island leave?", "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    documents = done.stdout.split("Questions about documents")[1]
    assert "2 documents as 2 chunks" in documents
    assert re.search(r"Sources:\s+0\.\d{3}\s+boat\.txt:", documents)


def test_demo_needs_no_network(tmp_path: Path) -> None:
    """Neither framework looks for anything outside this machine."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*arguments, **options):\n    raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n",
        "utf-8",
    )
    done = run("demo", "--max-tokens", "4", env={"PYTHONPATH": str(tmp_path), "NLTK_DATA": str(tmp_path / "nltk")})
    assert done.returncode == 0, done.stderr
    assert "network was used" not in done.stdout + done.stderr
    assert not (tmp_path / "nltk").exists()


def test_complete() -> None:
    done = run("complete", "How many days are in a week?", "--temperature", "0", "-n", "24", "--figures")
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout
    assert "answer tokens" in done.stderr


def test_complete_from_a_pipe_in_plain() -> None:
    first, second = (
        run("complete", "-", "--template", "plain", "--seed", "5", "-n", "8", input="Once upon a time")
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.strip()


def test_chat_answers_line_by_line() -> None:
    done = run(
        "chat", "-t", "0", "-n", "12", "--stop", "\n", input="How many days are in a week?\nThank you.\n/exit\nNo.\n"
    )
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) == 2


def test_list_and_info() -> None:
    listed = run("list")
    assert re.search(r"^smollm2-135m-instruct .* yes\s*$", listed.stdout, re.MULTILINE)
    text = " ".join(run("info", "smollm2-135m-instruct").stdout.split())
    for part in ("Q4_1", "llama_cpp: it is a .gguf file", "smollm2: the catalog says so", "8192 tokens", "Apache-2.0"):
        assert part in text
    vectors = " ".join(run("info", "all-minilm-l6-v2").stdout.split())
    assert "makes vectors" in vectors
    assert "template" not in vectors


def test_bench() -> None:
    done = run("bench", "--parallel", "2", "--tokens", "4", "--repeat", "1", "--context-length", "600")
    assert done.returncode == 0, done.stderr
    assert re.search(r"2 streams\s+[\d.]+ tokens/s", done.stdout)


def test_an_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\0" * 100)
    done = run("complete", "Hi", "--model", str(bad))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(bad) in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupt_ends_with_130() -> None:
    command = [*PROGRAM, "complete", "Write a long story about a lighthouse.", "-n", "4000"]
    # A shell's background job ignores interrupts, and so would its children.
    heeding = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, heeding)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1), "nothing was written"
        process.send_signal(signal.SIGINT)
        # The whole answer would take far longer.
        code = process.wait(timeout=30)
        errors = process.stderr.read().decode()
    assert code == 130
    assert "Traceback" not in errors


def test_template_shows_the_tokens_of_a_model() -> None:
    done = run("template", "smollm2", "Hi 你 <|im_end|>", "--model", "smollm2-135m-instruct")
    assert done.returncode == 0, done.stderr
    rows = [line.strip().split(maxsplit=3) for line in done.stdout.splitlines() if line.lstrip()[:1].isdigit()]
    markers = [row[3] for row in rows if row[2] == "marker"]
    assert markers == ['"<|im_start|>"', '"<|im_end|>"'] * 2 + ['"<|im_start|>"']
    said = [row[3] for row in rows if row[2] == "content"]
    assert said[0] == '"Hi"'
    assert {"marker", "structure", "content"} == {row[2] for row in rows}
