"""Names of repositories and files: only plain ones become addresses and paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from local_llms import load_model
from local_llms.errors import OptionError
from local_llms.hub.hf_cache import Repository, hub_cache
from local_llms.hub.names import all_parts, check_file, check_repository, check_revision, parse_hub_name
from local_llms.hub.source import HubSource


@pytest.mark.parametrize(
    ("text", "repository", "file"),
    [
        ("hf:org/repo", "org/repo", None),
        ("hf:org/repo:model.gguf", "org/repo", "model.gguf"),
        ("hf:O_r-g.1/Re.po_2-GGUF:folder/with space/mödel.Q4_0.gguf", "O_r-g.1/Re.po_2-GGUF", None),
    ],
)
def test_sound_names(text: str, repository: str, file: str | None) -> None:
    name = parse_hub_name(text)
    assert name.repository == repository
    assert name.file == (file or (text.partition(":")[2].partition(":")[2] or None))
    assert str(name) == text


BAD_REPOSITORIES = [
    "",
    "repo",
    "/repo",
    "org/",
    "a/b/c",
    "../repo",
    "org/..",
    "org/.hidden",
    "org/re..po",
    "org/re--po",
    "org/repo.git",
    "org\\repo",
    "org/re po",
    "org/repo?x=1",
    "org/repo#x",
    "org/%2e%2e",
    "https://huggingface.co/org/repo",
    "org/repo\n",
    "org/repo\0",
    "o" * 97 + "/repo",
    "-org/repo",
    "örg/repo",
]
BAD_FILES = [
    "",
    "..",
    ".",
    "../model.gguf",
    "a/../model.gguf",
    "a/./model.gguf",
    "a//model.gguf",
    "/etc/passwd",
    "model.gguf/",
    "C:\\model.gguf",
    "C:model.gguf",
    "a\\..\\model.gguf",
    "https://example.org/model.gguf",
    ".git/config",
    "a/.hidden",
    "model.gguf\n",
    "model\0.gguf",
    " model.gguf",
    "m" * 201,
    "a/" * 200 + "m.gguf",
    "model-00002-of-00003.gguf",
    "model-00001-of-00000.gguf",
    "modeling_owl.py",
    "model.gguf.py",
    "README",
    "config.json",
]
BAD_REVISIONS = ["", "..", "../x", "a/../b", "/main", "main/", "a b", "main\n", "a\\b", "x" * 130, "-x"]


@pytest.mark.parametrize("value", BAD_REPOSITORIES)
def test_a_strange_repository_is_refused_everywhere(value: str) -> None:
    with pytest.raises(ValueError, match="must be organisation/repository"):
        check_repository(value)
    with pytest.raises(OptionError):
        load_model(f"hf:{value}")
    with pytest.raises(ValidationError):
        HubSource.model_validate({"kind": "hub", "repository": value, "file": "model.gguf"})


@pytest.mark.parametrize("value", BAD_FILES)
def test_a_strange_file_is_refused_everywhere(value: str) -> None:
    with pytest.raises(ValueError, match="the file"):
        check_file(value)
    with pytest.raises(OptionError, match=r"hf:organisation/repository:file\.gguf"):
        load_model(f"hf:org/repo:{value}")
    with pytest.raises(ValidationError):
        HubSource.model_validate({"kind": "hub", "repository": "org/repo", "file": value})


@pytest.mark.parametrize("value", BAD_REVISIONS)
def test_a_strange_revision_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="the revision"):
        check_revision(value)


@pytest.mark.parametrize("value", ["main", "v1.0", "refs/pr/1", "0" * 40])
def test_sound_revisions(value: str) -> None:
    assert check_revision(value) == value


def test_every_place_lies_in_the_cache() -> None:
    repository = Repository.of(check_repository("org/repo"))
    places = [
        repository.pointer("0" * 40, check_file("a/b c/model.gguf")),
        repository.blob("0" * 64),
        repository.partial("0" * 64),
        repository.lock("0" * 64),
    ]
    for place in places:
        assert place.resolve().is_relative_to(hub_cache().resolve())


def test_the_parts_of_a_model() -> None:
    assert all_parts("x.gguf") == ("x.gguf",)
    assert all_parts("a/x-00001-of-00002.gguf") == ("a/x-00001-of-00002.gguf", "a/x-00002-of-00002.gguf")
    with pytest.raises(ValidationError, match="in several"):
        HubSource.model_validate(
            {"kind": "hub", "repository": "org/repo", "file": "x-00001-of-00002.gguf", "sha256": "0" * 64}
        )


def test_the_cache_is_the_one_of_other_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub_cache().name == "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "own"))
    assert hub_cache() == tmp_path / "own"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert hub_cache() == tmp_path / "home" / "hub"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub_cache() == tmp_path / "xdg" / "huggingface" / "hub"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
