"""The README and the docs say what is true: their Python blocks run, their commands exist, their tables agree."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from typer.testing import CliRunner

from local_llms import errors, load_model, options, render_prompt
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
    """Every call of the command in a bash block, and in the text."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "bash"):
            for part in re.split(r"&&|\||\n", text):
                words = shlex.split(part, comments=True)
                if words[:1] == ["local-llms"]:
                    found.append(words[1:])
        for text in re.findall(r"`(local-llms [^`]+)`", BLOCK.sub("", page.read_text("utf-8"))):
            found.append(shlex.split(text)[1:])
    return [words for place, words in enumerate(found) if words not in found[:place]]


NOT_HERE = re.compile(r"hf:|\.pth|\.bin|chatglm|dolly|codealpaca|alpaca-lora|robin|MODEL|FILE|NAME")
"""In a shown command: models that no test has, and words that stand for others."""


def runs_here(words: list[str]) -> bool:
    """Whether a test can do what a shown command does, in little time and without taking anything away."""
    quick = ("chat", "complete", "list", "info", "template", "pull", "quantize")
    return (words[0] in quick or words[:2] == ["cache", "list"]) and not any(map(NOT_HERE.search, words))


@pytest.fixture(scope="module")
def in_memory(smollm2_path: Path, minilm_path: Path) -> Iterator[None]:
    """Both small models, so that no page has to load them."""
    with load_model(), load_model("all-minilm-l6-v2"):
        yield


@pytest.fixture
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the end of an answer: where a page sets no bound, it is cut."""
    monkeypatch.setattr(options, "SamplingParams", partial(SamplingParams, max_tokens=32))


STANDS_FOR = {'"qwen3-0.6b"': '"smollm2-135m-instruct", template="qwen3"'}
"""In a block: a model that no test has, and one that can be asked in the same way."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_path: Path) -> Path:
    """A folder with the files that are named in the shown commands, as the current one."""
    for model in ("path/to/model.gguf", "path/to/other.gguf", "f16.gguf", "q8.gguf", "q4.gguf"):
        (tmp_path / model).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / model).symlink_to(smollm2_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "boat.txt").write_text("The boat leaves at nine.", "utf-8")
    (tmp_path / "book.txt").write_text("The boat leaves at nine. " * 20, "utf-8")
    (tmp_path / "conversation.json").write_text(json.dumps([{"role": "user", "content": "Hello!"}]), "utf-8")
    tool = {"name": "weather", "description": "The weather.", "parameters": {"type": "object", "properties": {}}}
    (tmp_path / "tools.json").write_text(json.dumps([tool]), "utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.real
@pytest.mark.usefixtures("in_memory", "_short_answers")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_blocks_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The blocks of a page go on from one to the next, as a reader would type them.
    names: dict[str, Any] = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        for shown, used in STANDS_FOR.items():
            text = text.replace(shown, used)
        code = compile("\n" * (line - 1) + text, str(page), "exec")
        exec(code, names)


@pytest.mark.real
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_that_is_shown_is_understood(words: list[str], desk: Path) -> None:
    if words[0] in ("--help", "COMMAND"):
        return
    given = [str(Path(word).expanduser()) if word.startswith("~") else word for word in words]
    group = import_module("typer.main").get_command(app)
    command = group.get_command(None, given[0])
    assert command is not None, f"there is no command {given[0]}"
    (desk / "FOLDER").mkdir()
    # Without an argument that must be there, it is the command's name that is meant.
    with contextlib.suppress(import_module("typer").Exit):
        command.make_context(given[0], given[1:], resilient_parsing=len(given) == 1)


@pytest.mark.real
@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("words", [words for words in commands() if len(words) > 1 and runs_here(words)], ids=" ".join)
def test_a_command_that_is_shown_does_it(words: list[str], desk: Path) -> None:
    if words[0] in ("chat", "complete"):
        words = [*words, "--max-tokens", "8"]
    done = CliRunner().invoke(app, words, input="What is a boat?", env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert done.stdout


def test_what_the_template_command_shows() -> None:
    (shown,) = [text for _, text in blocks(ROOT / "docs" / "command.md", "text")]
    done = CliRunner().invoke(app, ["template", "chatml", "Hello!"])
    assert done.stdout == shown


def test_what_the_readme_says_of_a_misspelt_model() -> None:
    (shown,) = re.findall(r"print\(error\)  # (.*)", (ROOT / "README.md").read_text("utf-8"))
    with pytest.raises(errors.ModelNotFound) as caught:
        load_model("smolm2-135m-instruct")
    assert str(caught.value) == shown


def test_the_signature_that_is_shown() -> None:
    (shown,) = re.findall(
        r"`render_prompt\((template, .*?)\)`", (ROOT / "docs" / "prompts.md").read_text("utf-8"), re.DOTALL
    )
    told: list[str] = []
    for parameter in inspect.signature(render_prompt).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in told:
            told.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        told.append(parameter.name + default)
    assert shown.split() == ", ".join(told).split()


def test_what_is_installed_and_started_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for page in [*PAGES, *FAMILIES]:
        text = page.read_text("utf-8")
        for names in re.findall(r"pip install (?:-e )?\"[\w.-]+\[([\w,-]+)\]\"", text):
            assert set(names.split(",")) <= set(extras), f"{name(page)}: {names}"
        for module, arguments in re.findall(r"python -m ([\w.]+)([^`\n]*)", text):
            spec = importlib.util.find_spec(module)
            assert spec is not None, f"{name(page)}: {module}"
            if module.startswith(("tests", "tools")):
                assert spec.origin is not None
                source = Path(spec.origin).read_text("utf-8")
                for word in arguments.split():
                    assert word.removeprefix("--") in source, f"{name(page)}: {module} {word}"


def test_names_that_are_told_exist() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "local_llms").rglob("*.py"))
    sources += (ROOT / "tests" / "conftest.py").read_text("utf-8")
    for page in PAGES:
        text = page.read_text("utf-8")
        for variable in re.findall(r"\b(?:LOCAL_LLMS|HF)_[A-Z_]+\b", text):
            # The hub's library reads these itself.
            assert variable in sources or variable in ("HF_HOME", "HF_TOKEN"), f"{name(page)}: {variable}"
        for dotted in re.findall(r"`(local_llms(?:\.\w+)+)`", text):
            parts = dotted.split(".")
            logger = f'getLogger("{dotted}")'
            assert _exists(parts) or logger in sources, f"{name(page)}: {dotted}"


def _exists(parts: list[str]) -> bool:
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    return False


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


def test_the_options_table_says_what_the_options_say() -> None:
    shown = rows(ROOT / "docs" / "options.md")
    for option, field in {**CallOptions.model_fields, **LoadingOptions.model_fields}.items():
        assert field.description, option
        has_choices = any(get_origin(part) is Literal for part in (field.annotation, *get_args(field.annotation)))
        # "template" and "adapter" stand in two tables, of which the later one is found.
        if not has_choices and option not in ("template", "adapter"):
            text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", shown[option][1]).replace("`", "")
            assert text == field.description, option


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
