"""Writes the page of each family, ``docs/families/NAME.md``, from its data file: ``python -m tools.family_pages``.

A page says nothing that the data does not. ``tests/unit/test_family_pages.py`` fails where one differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from local_llms.catalog import (
    AdapterCard,
    Family,
    FileSource,
    HubSource,
    ModelCard,
    PackageSource,
    Template,
    ThinkingFormat,
    families,
)
from local_llms.cli.console import count_text, size_text
from local_llms.templates import EXAMPLE, Places, places, preview_template
from local_llms.types import Message
from tools.family_examples import HAIKU, INPUT, INSTRUCTION, SYSTEM, TOOL, examples

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "local_llms" / "families"
FOLDER = Path("docs") / "families"
NAVIGATION = Path("mkdocs.yml")
_NAVIGATED = re.compile(r"(?<=  - Families:\n)(?:      - .*\n)+")


def pages() -> dict[Path, str]:
    """Every file that is written, by its path within the project, the navigation of the documentation too."""
    shipped = [family for name, family in sorted(families().items()) if (DATA / f"{name}.toml").is_file()]
    written = {FOLDER / f"{family.name}.md": "\n".join(_page(family)).rstrip("\n") + "\n" for family in shipped}
    written[FOLDER / "index.md"] = "\n".join(_index(shipped)) + "\n"
    entries = ["      - All families: families/index.md\n"]
    entries += [f"      - {family.title}: families/{family.name}.md\n" for family in shipped]
    written[NAVIGATION] = _NAVIGATED.sub("".join(entries), (ROOT / NAVIGATION).read_text("utf-8"))
    return written


def _index(shipped: Sequence[Family]) -> Iterator[str]:
    yield "# Families"
    yield ""
    yield (
        "A family is a data file: prompt templates, stops, sampling defaults, models and licences that belong "
        "together. These come with the package; [models and families](../models.md) shows how to add one of your own. "
        '`local-llms template NAME` shows what any conversation becomes, and `template="NAME"` picks a template for '
        "any model."
    )
    yield ""
    rows = []
    for family in shipped:
        rows.append(
            [
                f"[{family.title}]({family.name}.md)",
                ", ".join(_code(name) for name in (family.classes.llm, family.classes.chat) if name) or "–",
                ", ".join(_code(template.name) for template in family.templates) or "–",
                str(len(family.models) or "–"),
                str(len(family.adapters) or "–"),
                "; ".join(_licences(family)) or "–",
            ]
        )
    yield from _table(["family", "classes", "templates", "models", "adapters", "licences: commercial use"], rows)
    yield ""
    yield (
        "llama-index has the first class of each pair. A family without classes of its own is used as `ChatLocal` or "
        "`LocalLLM`, with a model of the catalog or with `template=`."
    )


def _page(family: Family) -> Iterator[str]:
    yield f"<!-- Written by tools.family_pages from local_llms/families/{family.name}.toml: change that file. -->"
    yield ""
    yield f"# {family.title}"
    yield ""
    yield family.description
    yield ""
    yield from _table(["", ""], _facts(family))
    yield ""
    shown = examples(family)
    yield from ("## In LangChain", "", *_fenced(shown.langchain, "python"), "")
    yield from ("## In llama-index", "", *_fenced(shown.llama_index, "python"), "")
    yield from _models(family)
    yield from _adapters(family)
    if family.default_template:
        yield from ("## Sampling", "", *_sampling(family), "")
    if family.templates:
        yield from ("## Templates", "")
    for template in family.templates:
        yield from (*_template(family, template), "")


def _facts(family: Family) -> Iterator[Sequence[str]]:
    yield "family", _code(family.name)
    if family.default_template:
        classes = [name for name in (family.classes.llm, family.classes.chat) if name]
        yield "classes for LangChain", ", ".join(map(_code, classes)) or "`LocalLLM`, `ChatLocal`"
        yield "class for llama-index", _code(family.classes.llm or "LocalLLM")
        yield "template of its classes" if classes else "usual template", _code(family.default_template)
    if family.models or family.adapters:
        yield "licences: commercial use", "; ".join(_licences(family))


def _models(family: Family) -> Iterator[str]:
    yield "## Models"
    yield ""
    if not family.models:
        yield "The catalog has no model of this family: give a file, a folder, or a place on the hub (`hf:…`)."
        yield ""
        return
    rows = [
        [
            _code(card.name) + (" (default)" if card.default else ""),
            count_text(card.parameters),
            str(card.context_length) if card.context_length else "unknown",
            card.licence,
            card.commercial_use,
            size_text(card.size) if card.size else "–",
            _sources(card),
        ]
        for card in family.models
    ]
    yield from _table(["model", "weights", "context", "licence", "commercial use", "size", "from"], rows)
    yield ""
    yield from _notes(family, family.models)
    yield ""


def _adapters(family: Family) -> Iterator[str]:
    if not family.adapters:
        return
    yield "## Adapters"
    yield ""
    first = family.adapters[0]
    yield (
        f'To be used with `adapter="{first.name}"` over any copy of the base, per model or per call; '
        f'`model="{first.name}"` loads the base with it.'
    )
    yield ""
    rows = [
        [_code(card.name), _code(card.base), card.licence, card.commercial_use, _sources(card)]
        for card in family.adapters
    ]
    yield from _table(["adapter", "over", "licence", "commercial use", "from"], rows)
    yield ""
    yield from _notes(family, family.adapters)
    yield ""


def _notes(family: Family, cards: Sequence[ModelCard | AdapterCard]) -> Iterator[str]:
    said: dict[str, list[str]] = {}
    for card in cards:
        facts = [fact for fact in (card.notes, _sampling_of(card, family), _claim(card)) if fact]
        if facts:
            said.setdefault(" ".join(facts), []).append(_code(card.name))
    for fact, names in said.items():
        yield f"- {', '.join(names)}: {fact}"


def _sources(card: ModelCard | AdapterCard) -> str:
    return "<br>".join(_source(source) for source in card.sources) or "by hand, see below"


def _source(source: PackageSource | FileSource | HubSource) -> str:
    if isinstance(source, PackageSource):
        return f"package `{source.requirement}`, {size_text(source.wheel_size)} to fetch"
    if isinstance(source, HubSource):
        return f"`hf:{source.repository}{f':{source.file}' if source.file else ''}`"
    return f"file `{source.path}`"


def _claim(card: ModelCard | AdapterCard) -> str:
    return f"The licence is named in {card.licence_source}." if card.licence_source else ""


def _sampling_of(card: ModelCard | AdapterCard, family: Family) -> str:
    own = {name: value for name, value in card.sampling.items() if family.sampling.get(name) != value}
    return f"Sampling: {_values(own.items())}." if own else ""


def _sampling(family: Family) -> Iterator[str]:
    if family.sampling:
        yield f"Defaults of the family: {_values(family.sampling.items())}. The others are those of the package."
    else:
        yield "The family has no defaults of its own; those of the package are taken."


def _values(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in pairs)


def _template(family: Family, template: Template) -> Iterator[str]:
    place = places(template.name)
    yield f"### {template.name}"
    yield ""
    if template.name == family.default_template:
        yield "The template of the family's classes."
        yield ""
    yield from _table(
        ["", ""],
        [
            ["has a place for", ", ".join(_taken(place))],
            ["BOS token", _bos(template, place)],
            ["EOS token", _eos(template, place)],
            ["tokens that end an answer", _markers(template.stop_tokens)],
            ["strings that end an answer", _markers(template.stop)],
            *([["system message of its own", _code(template.default_system)]] if template.default_system else []),
            *([["a call of a tool", _code(template.tools.call)]] if template.tools else []),
            *([["a thought", _thought(template.thinking)]] if template.thinking else []),
            ["from", template.provenance or "–"],
        ],
    )
    for what, messages, given in _conversations(place):
        text = preview_template(template.name, messages, **given).text
        yield from ("", f"{what}{_end_of(text)}:", "", *_fenced(text.removesuffix("\n"), "text"))


def _thought(form: ThinkingFormat) -> str:
    usual = "usual, and `thinking=False` turns it off" if form.by_default else "comes with `thinking=True`"
    return f"{_code(form.opening + '…' + form.closing)}: {usual}; see [reasoning](../reasoning.md)"


def _conversations(place: Places) -> Iterator[tuple[str, Sequence[Message], dict[str, Any]]]:
    yield ("A conversation", EXAMPLE if place.turns else EXAMPLE[:1], {})
    if place.system:
        yield ("With a system message", [Message("system", SYSTEM), Message("user", HAIKU)], {})
    if place.input:
        yield ("An instruction with an input", [Message("user", INSTRUCTION)], {"input": INPUT})
    if place.tools:
        yield ("With a tool", [Message("user", "Is it warm in Oslo?")], {"tools": [TOOL]})


def _end_of(text: str) -> str:
    """What cannot be seen at the end of a block."""
    if text.endswith("\n"):
        return " (a line break ends it)"
    return " (a space ends it)" if text.endswith(" ") else ""


def _taken(place: Places) -> Iterator[str]:
    yield "several turns" if place.turns else "one question"
    names = {"a system message": place.system, "an input": place.input, "tools": place.tools}
    names["results of tools"] = place.results
    yield from (name for name, has in names.items() if has)


def _bos(template: Template, place: Places) -> str:
    if not template.bos_token:
        return "not written; where a model's tokenizer wants one, it is put in front"
    text = preview_template(template.name, EXAMPLE if place.turns else EXAMPLE[:1]).text
    count = text.count(template.bos_token)
    if count == 0:
        return f"{_code(template.bos_token)}, not written; where a model's tokenizer wants one, it is put in front"
    return f"{_code(template.bos_token)}, written {'in front' if count == 1 else f'{count} times below'}"


def _eos(template: Template, place: Places) -> str:
    if not template.eos_token:
        return "none in the format"
    closed = preview_template(template.name, EXAMPLE if place.turns else EXAMPLE[:1]).text
    written = template.eos_token in closed
    return f"{_code(template.eos_token)}, {'written where a turn ends' if written else 'not written between turns'}"


def _markers(texts: Sequence[str]) -> str:
    return " ".join(_code(text) for text in texts) or "–"


def _licences(family: Family) -> list[str]:
    """Each licence with the commercial use it allows, once, in the order of the models."""
    return list(dict.fromkeys(f"{card.licence}: {card.commercial_use}" for card in (*family.models, *family.adapters)))


def _code(text: str) -> str:
    """Inline code in a cell of a table, a line break as two characters."""
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in escaped else f"`{escaped}`"


def _fenced(text: str, language: str) -> list[str]:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return [f"{fence}{language}", *text.removesuffix("\n" if language == "python" else "").split("\n"), fence]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "".join(f"| {title} " if title else "| " for title in titles) + "|"
    yield "|---" * len(titles) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Write every page, and remove those of families that are no more."""
    written = pages()
    for path, text in written.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, "utf-8")
    for path in (ROOT / FOLDER).glob("*.md"):
        if path.relative_to(ROOT) not in written:
            path.unlink()


if __name__ == "__main__":
    main()
