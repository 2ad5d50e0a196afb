"""All families together: those that come with the package and the user's own.

The user's files are ``families/*.toml`` in the config folder. They add to the catalog; no name may be given twice.
Installed packages add to it too: an entry point of the group ``local_llms.families`` names a package, and the
``*.toml`` files in it are families. Reading happens at the first question, and again only when one of the user's files
or ``LOCAL_LLMS_HOME`` changes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from local_llms.catalog.reader import parse_family
from local_llms.catalog.schema import (
    AdapterCard,
    CardT,
    ClassKind,
    CommercialUse,
    Family,
    ModelCard,
    ModelKind,
    Template,
)
from local_llms.errors import CatalogError, ModelNotFound, OptionError
from local_llms.paths import config_dir

ENTRY_POINTS = "local_llms.families"
"""Group of the entry points of packages that bring families."""

Stamp = tuple[str, int, int]
"""A user's file: path, modification time in nanoseconds, size in bytes."""


@dataclass(slots=True)
class _Catalog:
    families: dict[str, Family] = field(default_factory=dict)
    templates: dict[str, tuple[Family, Template]] = field(default_factory=dict)
    models: dict[str, ModelCard] = field(default_factory=dict)
    adapters: dict[str, AdapterCard] = field(default_factory=dict)
    classes: dict[str, tuple[str, ClassKind]] = field(default_factory=dict)
    defaults: dict[ModelKind, str] = field(default_factory=dict)


def families() -> Mapping[str, Family]:
    """Every family by name. Raises CatalogError where a file has a mistake, as all functions here do."""
    return MappingProxyType(_current().families)


def find_family(name: str) -> Family:
    """The family of that name. Raises ModelNotFound, naming the nearest one."""
    known = _current().families
    if name not in known:
        raise ModelNotFound("family", name, known)
    return known[name]


def find_template(name: str) -> tuple[Family, Template]:
    """The template of that name, and the family whose file has it. Raises ModelNotFound, naming the nearest one."""
    known = _current().templates
    if name not in known:
        raise ModelNotFound("template", name, known)
    return known[name]


def find_model(name: str) -> ModelCard:
    """The model of that name. Raises ModelNotFound, naming the nearest one."""
    known = _current().models
    if name not in known:
        raise ModelNotFound("model", name, known)
    return known[name]


def find_adapter(name: str) -> AdapterCard:
    """The adapter of that name. Raises ModelNotFound, naming the nearest one."""
    known = _current().adapters
    if name not in known:
        raise ModelNotFound("adapter", name, known)
    return known[name]


def list_models(family: str | None = None, commercial_use: CommercialUse | bool | None = None) -> list[ModelCard]:
    """The models of the catalog, by family and size.

    ``family`` keeps those of one family, ``commercial_use`` those whose licence allows commercial use in that way: True
    is "yes" and False is "no"; those with conditions to read first are asked for by "conditional".
    Raises ModelNotFound for a family that does not exist, OptionError for another value of ``commercial_use``.
    """
    cards = _narrowed(_current().models.values(), family, commercial_use)
    return sorted(cards, key=lambda card: (card.family, card.parameters, card.name))


def list_adapters(
    family: str | None = None, commercial_use: CommercialUse | bool | None = None, base: str | None = None
) -> list[AdapterCard]:
    """The adapters of the catalog, by family and name; narrowed as in ``list_models``.

    ``base`` keeps those over one model. Raises ModelNotFound for a family or model that does not exist.
    """
    if base is not None:
        find_model(base)
    cards = _narrowed(_current().adapters.values(), family, commercial_use)
    return sorted(
        (card for card in cards if base in (None, card.base)), key=lambda card: (card.family, card.base, card.name)
    )


def _narrowed(
    cards: Iterable[CardT], family: str | None, commercial_use: CommercialUse | bool | None
) -> Iterator[CardT]:
    if family is not None:
        find_family(family)
    if isinstance(commercial_use, bool):
        commercial_use = "yes" if commercial_use else "no"
    if commercial_use not in (None, *get_args(CommercialUse)):
        known = ", ".join(map(repr, get_args(CommercialUse)))
        raise OptionError(f"commercial_use={commercial_use!r}: give True, False or one of {known}.")
    return (card for card in cards if family in (None, card.family) and commercial_use in (None, card.commercial_use))


def default_model(kind: ModelKind = "generate") -> str:
    """Name of the model that is taken when none is given: the user's own ``default = true``, else the package's."""
    return _current().defaults[kind]


def class_names() -> Mapping[str, tuple[str, ClassKind]]:
    """Name of each class that the adapters offer for a family → the family's name, and what the class takes."""
    return MappingProxyType(_current().classes)


def _current() -> _Catalog:
    return _load(_user_files(config_dir() / "families"))


def _user_files(folder: Path) -> tuple[Stamp, ...]:
    try:
        if not folder.is_dir():
            return ()
        stats = ((path, path.stat()) for path in sorted(folder.glob("*.toml")))
        return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats)
    except OSError as error:
        raise CatalogError(f"The folder of your own families, {folder}, cannot be read: {error.strerror}.") from error


@lru_cache(maxsize=1)
def _shipped() -> tuple[tuple[str, Family], ...]:
    folder = resources.files("local_llms") / "families"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return tuple(
        (str(file), parse_family(file.read_text("utf-8"), f"families/{file.name}", folder=None)) for file in files
    )


@lru_cache(maxsize=1)
def _of_packages() -> tuple[tuple[str, Family], ...]:
    """The families that installed packages bring. A package is found without running it, unless it lies in another."""
    found: list[tuple[str, Family]] = []
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
        where = f"the entry point {point.name} of {point.dist.name if point.dist else 'a package'}"
        try:
            spec = importlib.util.find_spec(point.value)
        except (ImportError, ValueError):
            spec = None
        folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
        files = sorted(file for folder in folders for file in folder.glob("*.toml"))
        if not files:
            raise CatalogError(
                f"{where} names {point.value!r}, which is no package with *.toml files. Correct it, or uninstall that "
                "package."
            )
        found += [(f"{file}, by {where}", _read(file)) for file in files]
    return tuple(found)


@lru_cache(maxsize=8)
def _load(user_files: tuple[Stamp, ...]) -> _Catalog:
    own = tuple((path, _read(Path(path))) for path, _, _ in user_files)
    catalog = _Catalog()
    for files in (_shipped(), _of_packages(), own):
        _add_defaults(catalog, files)
    every = _shipped() + _of_packages() + own
    _add_names(catalog, every)
    _check_names(catalog, every)
    return catalog


def _read(path: Path) -> Family:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    return parse_family(text, str(path), folder=path.parent.absolute())


def _add_names(catalog: _Catalog, files: tuple[tuple[str, Family], ...]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for file, family in files:
        classes: list[tuple[str, ClassKind]] = []
        if family.classes.llm:
            classes.append((family.classes.llm, "llm"))
        if family.classes.chat:
            classes.append((family.classes.chat, "chat"))
        names = [("family", family.name)]
        names += [("template", template.name) for template in family.templates]
        names += [("model", card.name) for card in (*family.models, *family.adapters)]
        names += [("class", name) for name, _ in classes]
        for what, name in names:
            if (what, name) in seen:
                raise CatalogError(f"The {what} {name!r} stands in {seen[what, name]} and in {file}: rename one.")
            seen[what, name] = file
        catalog.families[family.name] = family
        catalog.templates.update({template.name: (family, template) for template in family.templates})
        catalog.models.update({card.name: card for card in family.models})
        catalog.adapters.update({card.name: card for card in family.adapters})
        catalog.classes.update({name: (family.name, kind) for name, kind in classes})


def _add_defaults(catalog: _Catalog, files: tuple[tuple[str, Family], ...]) -> None:
    """Later files replace the defaults of earlier ones; among ``files`` there is one for each kind at most."""
    marked: dict[ModelKind, tuple[str, str]] = {}
    for file, family in files:
        for card in family.models:
            if not card.default:
                continue
            if card.kind in marked:
                other, other_file = marked[card.kind]
                raise CatalogError(
                    f"Two models have default = true: {other} in {other_file} and {card.name} in {file}. Keep one."
                )
            marked[card.kind] = (card.name, file)
    catalog.defaults.update({kind: name for kind, (name, _) in marked.items()})


def _check_names(catalog: _Catalog, files: tuple[tuple[str, Family], ...]) -> None:
    """Raise CatalogError where a file names a template or a base that no file has."""
    for file, family in files:
        uses = [("default_template", family.default_template)] if family.default_template else []
        for template in family.templates:
            others = (template.thinking.on, template.thinking.off) if template.thinking else ()
            uses += [(f"the other template of {template.name}, for thinking,", name) for name in others if name]
        for card in (*family.models, *family.adapters):
            if card.template is None and not (isinstance(card, ModelCard) and card.kind == "embed"):
                raise CatalogError(
                    f'{file}: {card.name} has no template. Give it template = "…", or the file a default_template; '
                    '"plain" sends a prompt as it is.'
                )
            if card.template:
                uses.append((f"the template of {card.name}", card.template))
        for what, name in uses:
            if name not in catalog.templates:
                raise CatalogError(f"{file}: {what} is {name!r}, {ModelNotFound('template', name, catalog.templates)}")
        for adapter in family.adapters:
            if adapter.base not in catalog.models:
                unknown = ModelNotFound("model", adapter.base, catalog.models)
                raise CatalogError(f"{file}: the base of {adapter.name} is {adapter.base!r}. {unknown}")
