"""The rules of the house: lint, types, who imports whom, short files, documents that agree with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import local_llms

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "local_llms"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400

pytestmark = pytest.mark.filterwarnings("default")


def run(*command: str) -> None:
    program = [sys.executable, "-m"] if command[0] != "-c" else [sys.executable]
    done = subprocess.run([*program, *command], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_lint() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_format() -> None:
    run("ruff", "format", "--check", "--no-cache", ".")


def test_types() -> None:
    run("mypy")


def test_import_boundaries() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache', '--no-logo'])"
    run("-c", code)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_one_idea(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES, f"{path} is longer than {MOST_LINES} lines: it has become two ideas"
    assert ast.get_docstring(ast.parse(text)), f"{path} does not say what it is for"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_leftovers(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        assert name != "print", f"{path}:{getattr(node, 'lineno', 0)} prints"
        is_stub = isinstance(node, ast.Raise) and "NotImplemented" in ast.unparse(node)
        assert not is_stub, f"{path}:{getattr(node, 'lineno', 0)} is a stub"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text("utf-8"))


def test_no_framework_or_library_is_imported_at_import() -> None:
    heavy = {"torch", "transformers", "llama_cpp", "langchain", "langchain_core", "llama_index", "numpy", "pydantic"}
    code = f"import sys, local_llms; found = {heavy!r} & set(sys.modules); sys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_public_names_exist_and_are_listed() -> None:
    names = local_llms.__all__
    assert sorted(names) == sorted(set(names))
    for name in names:
        assert getattr(local_llms, name) is not None
        assert name in dir(local_llms)


def test_the_changelog_knows_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(project['version'])}\]", text, re.MULTILINE)
    assert metadata.version("local-llms") == project["version"]


def test_every_extra_named_in_an_error_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = set(project["optional-dependencies"])
    named = {
        match
        for path in MODULES
        for match in re.findall(r"\[([a-z][a-z-]+)\]\"", path.read_text("utf-8"))
        if "pip install" in path.read_text("utf-8")
    } | {match for path in MODULES for match in re.findall(r"extra=\"([a-z-]+)\"", path.read_text("utf-8"))}
    named -= {"forbid", "ignore", "allow"}
    assert named, "no error names an extra"
    assert named <= known, f"errors name extras that do not exist: {sorted(named - known)}"


def test_ci_runs_the_readme_command() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(r'pip install -q -e "\.\[dev\]" .*&& pytest ', script)
    assert 'pip install -e ".[dev]" && pytest' in (ROOT / "README.md").read_text("utf-8")
