"""What the demo reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from local_llms.cli.demo import _SENTENCE
from local_llms.cli.documents import TOPICS, read_folder, write_manual
from local_llms.errors import OptionError


def test_the_manual_is_about_twenty_documents(tmp_path: Path) -> None:
    write_manual(tmp_path)
    files = read_folder(tmp_path)
    assert len(files) >= 20
    assert {file.name for file in files} <= {f"{name}.txt" for name in TOPICS}
    assert all(len(file.text) > 50 for file in files)


def test_a_python_without_its_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(OptionError, match="demo FOLDER"):
        write_manual(tmp_path)


def test_only_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.md").write_text("# A\n", "utf-8")
    (tmp_path / "b.txt").write_text("Grüße", "utf-8")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "zero.txt").write_bytes(b"a\0b")
    (tmp_path / "empty.txt").write_text(" \n", "utf-8")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("hidden", "utf-8")
    assert [(file.name, file.text) for file in read_folder(tmp_path)] == [
        ("b.txt", "Grüße"),
        (str(Path("below") / "a.md"), "# A"),
    ]


def test_a_folder_without_texts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no text files"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "One sentence", "One. Two! Three? Four", "A list:\n\n  1. x\n\nAn end.\n", "v1.2.3 stays whole. Yes.", "\n\n"],
)
def test_sentences_lose_nothing(text: str) -> None:
    pieces = _SENTENCE.findall(text)
    assert "".join(pieces).strip() == text.strip()
    if text.startswith("One. "):
        assert len(pieces) == 4
