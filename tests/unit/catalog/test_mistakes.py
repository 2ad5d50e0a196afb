"""A mistake in a family file is named with its file, line and key."""

from __future__ import annotations

import re

import pytest

from local_llms.catalog import families
from local_llms.catalog.reader import line_of, parse_family
from local_llms.errors import CatalogError
from tests.unit.catalog.conftest import OWL, Write

MISTAKES = [
    ("temperature = 0.25", "temperatur = 0.25", r"line 10, sampling.temperatur: .*Did you mean 'temperature'\?"),
    ("temperature = 0.25", "temperature = -1", r"line 10, sampling.temperature: .*greater than or equal to 0"),
    ('stop = "Night:"', 'stop = ""', r"line 11, sampling.stop: a stop string must not be empty"),
    ('title = "Owl"', 'titel = "Owl"', r"line 2, titel: there is no such key. Did you mean 'title'\?"),
    ('title = "Owl"\n', "", r"title: this key is missing"),
    ('name = "owl"\ntitle', 'name = "Owl Family"\ntitle', r"line 1, name: .*pattern"),
    ('commercial_use = "yes"', 'commercial_use = "maybe"', r"line 24, models\[0\].commercial_use: .*'yes', 'no'"),
    ('licence = "MIT"', 'license = "MIT"', r"line 23, models\[0\].license: .*Did you mean 'licence'\?"),
    ('licence = "MIT"', 'family = "crow"', r"owl-1b names another family, crow"),
    ("temperature = 0.5", "top_k = 1.5", r"line 36, models\[1\].sampling.top_k: .*integer"),
    ('version = "1.0"', 'version = "--index-url"', r"line 41, models\[1\].sources\[0\].version: .*pattern"),
    ('distribution = "owl-weights"', 'distribution = "-r"', r"line 40, models\[1\].sources\[0\].distribution: "),
    ('distribution = "owl-weights"', 'distributon = "x"', r"distributon: .*Did you mean 'distribution'\?"),
    (
        'path = "owl/owl-2b.gguf"',
        'path = "../owl-2b.gguf"',
        r"line 43, models\[1\].sources\[0\].members\[0\].path: .*relative",
    ),
    ('path = "owl/owl-2b.gguf"', 'path = "/etc/owl-2b.gguf"', r"members\[0\].path: must be a relative path"),
    ('path = "owl/owl-2b.gguf"', "path = 'owl\\owl-2b.gguf'", r"members\[0\].path: must be a relative path"),
    ("wheel_size = 100", 'wheel_size = 100\nfile = "x.gguf"', r"file and file_size go with convert"),
    ("wheel_size = 100", 'wheel_size = 100\nconvert = "bert-gguf"', r"convert needs file and file_size"),
    ('kind = "file"', 'kind = "web"', r"line 26, models\[0\].sources\[0\]: .*'package', 'file'"),
    ('path = "weights/owl-1b.gguf"', "", r"line 26, models\[0\].sources\[0\].path: this key is missing"),
    ('llm = "OwlLLM"', 'llm = "Owl LLM"', r"line 6, classes.llm: must be a public Python name"),
    ('llm = "OwlLLM"', 'llm = "class"', r"line 6, classes.llm: must be a public Python name"),
    ('default_template = "owl"\n', "", r"classes need a default_template"),
    ('title = "Owl"', "title = Owl", r"not valid TOML: .*line 2"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES)
def test_a_mistake_is_named(write: Write, right: str, wrong: str, message: str) -> None:
    assert right in OWL
    path = write(OWL.replace(right, wrong, 1))
    with pytest.raises(CatalogError) as caught:
        families()
    assert str(path) in str(caught.value)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_several_mistakes_are_named_at_once() -> None:
    with pytest.raises(CatalogError, match=r"title: this key is missing; line 2, x: .*; line 3, y: "):
        parse_family('name = "a"\nx = 1\ny = 2\n', "a.toml", None)


def test_the_right_text_has_no_mistake() -> None:
    assert parse_family(OWL, "owl.toml", None).name == "owl"


def test_lines_are_found_past_text_that_looks_like_tables() -> None:
    text = (
        'a = """\n[[models]]\nname = 1\n"""\n[[models]]\nname = 2\n[[models]]\nname = 3\n[models.sampling]\nseed = 1\n'
    )
    assert line_of(text, ("models", 0, "name")) == 6
    assert line_of(text, ("models", 1, "name")) == 8
    assert line_of(text, ("models", 1, "sampling", "seed")) == 10
    assert line_of(text, ("models", 1, "licence")) == 7
    assert line_of(text, ("nothing",)) is None
