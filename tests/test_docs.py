"""The README and the docs say what is true: their Python blocks run, their commands exist, their tables agree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from local_llms import errors
from local_llms.catalog.reader import parse_family
from local_llms.cli.main import COMMANDS, app
from local_llms.options import CallOptions, LoadingOptions, SamplingOptions
from local_llms.types import SamplingParams

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FAMILIES = sorted((ROOT / "docs" / "families").glob("*.md"))
"""Written from data; tests/unit/test_family_pages.py runs what they show."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of every block in a language."""
    text = page.read_text("utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2]) for match in BLOCK.finditer(text) if match[1] == language
    ]


def commands() -> list[list[str]]:
    """Every call of the command in a bash block."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            for part in re.split(r"&&|\||\n", text):
                words = shlex.split(part, comments=True)
                if words[:1] == ["local-llms"]:
                    found.append(words[1:])
    return found


@pytest.mark.real
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_blocks_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The blocks of a page go on from one to the next, as a reader would type them.
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        code = compile("\n" * (line - 1) + text, str(page), "exec")
        exec(code, names)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_that_is_shown_exists(words: list[str]) -> None:
    if words[:1] == ["--help"]:
        return
    assert words[0] in COMMANDS
    shown = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200"}).output
    for word in words[1:]:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word)}\b", shown), f"{words[0]} has no {word}"


def test_every_command_has_a_section() -> None:
    page = (ROOT / "docs" / "command.md").read_text("utf-8")
    for name in COMMANDS:
        assert f"\n## {name}\n" in page, name
        assert f"local-llms {name}" in page, name


def test_the_readme_shows_both_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert 'pip install -e ".[quickstart]" && local-llms demo' in text
    assert 'pip install -e ".[dev]" && pytest' in text


def rows(page: Path) -> dict[str, list[str]]:
    """First cell, without backquotes → the other cells, of all tables of a page."""
    found = {}
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("| `"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            found[first.strip("`")] = others
    return found


def test_the_options_table_is_complete_and_right() -> None:
    shown = rows(ROOT / "docs" / "options.md")
    for option, field in {**LoadingOptions.model_fields, **CallOptions.model_fields}.items():
        if option not in SamplingOptions.model_fields:
            assert shown[option][0] == str(field.default), option
    for option in SamplingOptions.model_fields:
        default = getattr(SamplingParams(), option)
        assert shown[option][0] == (str(default) if default not in ({}, ()) else "None"), option
    known = {*LoadingOptions.model_fields, *CallOptions.model_fields}
    assert set(shown) == known, "options that are no more"


def test_the_tables_of_the_architecture_are_complete() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (layers,) = [contract for contract in project["tool"]["importlinter"]["contracts"] if contract["type"] == "layers"]
    for room in re.split(r" \| ", " | ".join(layers["layers"])):
        assert re.search(rf"^\| .*`{room}`.* \|", page, re.MULTILINE), f"no row for the room {room}"
    extras = project["project"]["optional-dependencies"]
    wanted = [project["project"]["dependencies"], *(extras[name] for name in set(extras) - {"dev", "docs"})]
    for requirement in {re.split(r"[\[<>=]", each)[0] for group in wanted for each in group} - {"local-llms"}:
        assert re.search(rf"^\| .*{re.escape(requirement)}", page, re.MULTILINE), f"no row for {requirement}"


def test_every_backend_is_shown() -> None:
    shown = {line for line in (ROOT / "docs" / "backends.md").read_text("utf-8").splitlines() if line.startswith("| ")}
    for folder in (ROOT / "local_llms" / "backends").iterdir():
        if (folder / "__init__.py").is_file():
            assert any(f"| `{folder.name}` |" in line for line in shown), folder.name


def test_the_catalog_files_that_are_shown_are_right() -> None:
    texts = [text for page in PAGES for _, text in blocks(page, "toml") if "title =" in text]
    assert {parse_family(text, "a page", ROOT).name for text in texts} == {"robin", "mine"}


def test_the_error_tree_is_complete() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    for error, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert re.search(rf"\b{error}\b", page), error


def test_every_page_can_be_found() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    index, readme = (ROOT / "docs" / "index.md").read_text("utf-8"), (ROOT / "README.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in navigation, f"mkdocs.yml does not lead to {page.name}"
        if page.name != "index.md":
            assert f"({page.name})" in index, f"docs/index.md does not lead to {page.name}"
            assert f"(docs/{page.name})" in readme, f"the README does not lead to {page.name}"


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *FAMILIES]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_the_documentation_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
