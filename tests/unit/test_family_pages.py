"""The page of each family says what its data file says, and the code on it works."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from local_llms.catalog import find_family, find_model
from local_llms.prompts import render_prompt
from local_llms.templates import places
from local_llms.testing.scripted import SPECIALS, ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model
from tools import family_pages
from tools.family_examples import HAIKU, INPUT, INSTRUCTION, QUESTION, SYSTEM, model_name

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in family_pages.DATA.glob("*.toml"))
ANSWER = "Red."
MARKERS = {number: text for text, number in SPECIALS.items()}

every_family = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    return family_pages.pages()


@pytest.mark.parametrize(
    "path", [*(Path("docs/families") / f"{name}.md" for name in [*NAMES, "index"]), Path("mkdocs.yml")], ids=str
)
def test_a_page_is_what_the_data_gives(path: Path, written: dict[Path, str]) -> None:
    assert (ROOT / path).is_file(), "write the pages with: python -m tools.family_pages"
    same = (ROOT / path).read_text("utf-8") == written[path]
    assert same, f"{path} differs from what the data gives; write the pages with: python -m tools.family_pages"


def test_there_is_no_page_of_a_family_that_is_no_more(written: dict[Path, str]) -> None:
    assert {path.relative_to(ROOT) for path in (ROOT / "docs/families").iterdir()} == set(written) - {
        Path("mkdocs.yml")
    }
    assert [find_family(name).name for name in NAMES] == NAMES


def test_the_pages_follow_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    vicuna = find_family("vicuna")
    card = vicuna.models[0].model_copy(
        update={"licence": "Owl Licence", "commercial_use": "no", "parameters": 123_000_000}
    )
    template = vicuna.templates[0].model_copy(update={"stop": ("TWIT|TWOO\n",)})
    changed = vicuna.model_copy(update={"models": (card,), "templates": (template,), "sampling": {"top_k": 7}})
    monkeypatch.setattr(family_pages, "families", lambda: {"vicuna": changed})
    page = family_pages.pages()[Path("docs/families/vicuna.md")]
    for part in ("| 123M |", "| Owl Licence | no |", "Owl Licence: no", "`TWIT\\|TWOO\\n`", "`top_k=7`"):
        assert part in page
    assert "vicuna-13b" not in page


@every_family
def test_every_prompt_is_on_the_page(name: str, written: dict[Path, str]) -> None:
    page = written[Path("docs/families") / f"{name}.md"]
    blocks = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    for template in find_family(name).templates:
        prompt = render_prompt(template.name, [{"role": "user", "content": HAIKU}])
        if places(template.name).system:
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": HAIKU}]
            prompt = render_prompt(template.name, messages)
            assert prompt.removesuffix("\n") + "\n" in blocks, template.name
        assert f"### {template.name}\n" in page


HELLO = {"role": "user", "content": "Hello!"}


class Listener:
    """Answers one thing, and notes every prompt, markers included."""

    def __init__(self, thought: str = "") -> None:
        self.prompts: list[str] = []
        self._answer = thought + ANSWER
        self._say = say(self._answer)

    def __call__(self, tokens: Sequence[int]) -> int:
        token = self._say(tokens)
        if token == ord(self._answer[0]):
            text = b"".join(MARKERS[number].encode() if number in MARKERS else bytes([number]) for number in tokens)
            self.prompts.append(text.decode().removeprefix("<s>"))
        return token


def blocks_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


@every_family
def test_the_code_of_a_page_works(name: str, written: dict[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    family = find_family(name)
    thinks = family.default_template and render_prompt(family.default_template, [HELLO]).endswith("<think>\n")
    listener = Listener("~</think>" if thinks else "")
    codes = blocks_of(written[Path("docs/families") / f"{name}.md"])
    assert len(codes) == 2
    with scripted_model(lambda: ScriptedBackend(listener, context_length=2048), template=None) as model:
        here = f'model="{model.path}"'
        if family.default_template and "template=" not in codes[0] and not family.classes.llm:
            # The catalog tells the template of its own models.
            here += f', template="{family.default_template}"'
        for code in codes:
            named = f'model="{model_name(family)}"'
            assert named in code
            run_on(model.path, code.replace(named, here))
    if family.default_template is None:
        return
    once = [{"role": "user", "content": QUESTION}]
    given: dict[str, Any] = {}
    place = places(family.default_template)
    if place.input and name != "plain":
        once, given = [{"role": "user", "content": INSTRUCTION}], {"input": INPUT}
    if name == "plain":
        once = [{"role": "user", "content": "Once upon a time"}]
    talk = [{"role": "user", "content": HAIKU}]
    if place.system:
        talk.insert(0, {"role": "system", "content": SYSTEM})
    first = render_prompt(family.default_template, once, **given).removeprefix("<s>")
    second = render_prompt(family.default_template, talk).removeprefix("<s>")
    assert listener.prompts == ([first] * 2 if name == "plain" else [first, second] * 2)
    assert capsys.readouterr().out.count(ANSWER) == len(listener.prompts)


def run_on(path: str, code: str) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, path, "exec"), names)


@every_family
def test_the_model_of_an_example_is_in_the_catalog(name: str) -> None:
    family = find_family(name)
    if any(card.sources for card in family.models):
        assert find_model(model_name(family)).family == name
