"""What a model's name means, and which prompt template the model gets."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from local_llms.backends.base import BackendInfo
from local_llms.catalog import (
    AdapterCard,
    Family,
    HubSource,
    ModelCard,
    Template,
    default_model,
    find_adapter,
    find_family,
    find_model,
    find_template,
    list_adapters,
    list_models,
)
from local_llms.errors import AdapterError, ModelFileError, ModelNotFound, OptionError
from local_llms.hub import PREFIX, HubName, cached, cached_named, fetch, fetch_named, parse_hub_name
from local_llms.thinking import format_in

ModelName = str | os.PathLike[str]

PLAIN = "plain"
"""The template that is none: what messages say, and nothing around it."""


_logger = logging.getLogger("local_llms")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's name, understood: where its file is, and what the catalog knows of it.

    ``hub`` is its place on the Hugging Face hub where it was named by that. ``adapter``: an adapter's name was given,
    and means its base together with it: then ``card`` tells of the two together.
    """

    name: str
    card: ModelCard | None
    file: Path | None
    hub: HubName | None = None
    adapter: AdapterCard | None = None

    def path(self, *, refresh: bool = False) -> Path:
        """The local file, fetched where it is not here yet. Raises DownloadError or ModelFileError.

        ``refresh``: the hub is asked for a newer one. A model that must not be used commercially says so once, as a
        warning in the log.
        """
        if self.card is not None and self.card.commercial_use == "no":
            _say_once(self.card.name, self.card.licence)
        if self.hub is not None:
            return fetch_named(self.hub, refresh=refresh)
        weights = self._weights()
        return self._own_file() if weights is None else fetch(weights, refresh=refresh)

    def adapter_path(self, *, refresh: bool = False) -> Path | None:
        """The local folder or file of the adapter, fetched where it is not here yet; None where there is none."""
        return None if self.adapter is None else fetch(self.adapter, refresh=refresh, want="adapter")

    def here(self) -> Path | None:
        """The local file; None where it would have to be fetched. Raises ModelFileError for a missing file."""
        if self.hub is not None:
            return cached_named(self.hub)
        weights = self._weights()
        return self._own_file() if weights is None else cached(weights)

    def _weights(self) -> ModelCard | None:
        return self.card if self.adapter is None else find_model(self.adapter.base)

    def _own_file(self) -> Path:
        if self.file is None:
            raise ModelNotFound("model", self.name, ())
        if not self.file.exists():
            raise ModelFileError(
                f"There is no file {self.name}. Give the path of a model file that exists{_perhaps_hub(self.name)}."
            )
        return self.file


def _perhaps_hub(name: str) -> str:
    """The end of a sentence about a file that is missing, where its name looks like a place on the hub."""
    place = "/".join(name.split("://")[-1].split("/")[1:3]) if "://" in name else name
    if Path(place).suffix in (".gguf", ".bin", ".pth", ".pt", ".safetensors"):
        return ""
    try:
        return f', or "{parse_hub_name(PREFIX + place)}" for that repository of the Hugging Face hub'
    except OptionError:
        return ""


@cache
def _say_once(name: str, licence: str) -> None:
    _logger.warning("The licence of the model %s (%s) does not allow commercial use.", name, licence)


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A template and the reason for it, as ``local-llms info`` shows it."""

    template: Template
    reason: str


def find_source(model: ModelName | None, family: str | None) -> ModelSource:
    """Understand ``model=``: a name of the catalog, ``hf:org/repo:file``, a file, or None for the default model.

    An adapter's name means its base together with it. Reads no weights and fetches nothing. Raises ModelNotFound, or
    OptionError for a wrong name after ``hf:``.
    """
    if model is None:
        if family is not None and find_model(default_model()).family != family:
            names = [card.name for card in find_family(family).models]
            known = f" The catalog has {', '.join(names)}." if names else ""
            raise ModelNotFound(
                "default model for the family", family, (), f'Name one: model="path/to/model.gguf".{known}'
            )
        model = default_model()
    if model == "":
        raise OptionError("model is an empty text. Give the name of a model, or leave it out for the default one.")
    if not isinstance(model, str):
        return ModelSource(os.fspath(model), None, Path(model))
    if model.startswith(PREFIX):
        name = parse_hub_name(model)
        card = _card_of(name)
        adapter = _adapter_at(name) if card is None else None
        return ModelSource(model, card, None, name) if adapter is None else _over_its_base(model, adapter)
    models = {card.name: card for card in list_models()}
    adapters = {card.name: card for card in list_adapters()}
    if model in models:
        return ModelSource(model, models[model], None)
    if model in adapters:
        return _over_its_base(model, adapters[model])
    path = Path(model).expanduser()
    if _is_a_path(model) or path.exists():
        return ModelSource(model, None, path)
    raise ModelNotFound("model", model, [*models, *adapters])


def _is_a_path(name: str) -> bool:
    return os.sep in name or name.startswith(("~", ".")) or Path(name).suffix == ".gguf"


def adapter_path(adapter: str) -> Path:
    """The folder or file that ``adapter=`` means: a path, ``hf:org/repo``, or a name of the catalog.

    It is fetched where it is not here yet. A file of weights means its folder. Raises AdapterError where there is none,
    OptionError for a wrong name after ``hf:``, and what ``fetch`` raises.
    """
    if adapter.startswith(PREFIX):
        return _folder_of(fetch_named(parse_hub_name(adapter), want="adapter").absolute())
    path = Path(adapter).expanduser()
    if path.exists():
        return _folder_of(path.resolve())
    try:
        card = find_adapter(adapter)
    except ModelNotFound as error:
        what = f"There is no file or folder {adapter}." if _is_a_path(adapter) else str(error)
        raise AdapterError(
            f"{what} Give the path of a PEFT folder or of a GGUF adapter, hf:organisation/repository, or a name of "
            "the catalog."
        ) from None
    if card.commercial_use == "no":
        _say_once(card.name, card.licence)
    return fetch(card, want="adapter").absolute()


def _folder_of(path: Path) -> Path:
    return path.parent if path.suffix in (".safetensors", ".bin") and path.is_file() else path


def _over_its_base(name: str, adapter: AdapterCard) -> ModelSource:
    told = ("name", "family", "template", "sampling", "licence", "commercial_use", "licence_source", "notes")
    together = find_model(adapter.base).model_copy(update={key: getattr(adapter, key) for key in told})
    return ModelSource(name, together, None, adapter=adapter)


def _adapter_at(name: HubName) -> AdapterCard | None:
    """The catalog's adapter in that repository."""
    return next(
        (
            card
            for card in list_adapters()
            for source in card.sources
            if isinstance(source, HubSource)
            and source.repository.lower() == name.repository.lower()
            and source.file == name.file
        ),
        None,
    )


def _card_of(name: HubName) -> ModelCard | None:
    """What the catalog knows of a place on the hub: of that file, or of the one model whose repository it is."""
    there = [
        (card, source.file)
        for card in list_models()
        for source in card.sources
        if isinstance(source, HubSource) and source.repository.lower() == name.repository.lower()
    ]
    exact = [card for card, file in there if file == name.file]
    cards = exact or [card for card, _ in there]
    return cards[0] if cards and all(card is cards[0] for card in cards) else None


def choose_template(
    explicit: str | None, family: str | None, card: ModelCard | None, info: BackendInfo
) -> ChosenTemplate | None:
    """The template of a loaded model; None where nothing tells which one is right.

    An explicit name comes first. A family class stands for its own format, whatever file it is given, but leaves a
    model of that family its own variant, which the catalog or the kind of checkpoint tells; a family whose format is
    "plain" has none of its own. Then the catalog knows best, then the file itself, then its kind, then the family's
    "plain".
    """
    if explicit is not None:
        return ChosenTemplate(find_template(explicit)[1], f"template={explicit!r} was given")
    own = None
    if family is not None and (card is None or card.family != family):
        found = find_family(family)
        if info.template in {template.name for template in found.templates}:
            return _template_of_its_kind(info.template)
        own = _family_template(found)
        if own is not None and own.template.name != PLAIN:
            return own
    if card is not None and card.template is not None:
        return ChosenTemplate(find_template(card.template)[1], f"the catalog says so for {card.name}")
    if info.chat_template is not None:
        return ChosenTemplate(_own_template(info, info.chat_template), "the model file carries it")
    return own if info.template is None else _template_of_its_kind(info.template)


def _template_of_its_kind(name: str | None) -> ChosenTemplate | None:
    if name is None:
        return None
    return ChosenTemplate(find_template(name)[1], f"a checkpoint of this kind was trained with {name}")


def _family_template(family: Family) -> ChosenTemplate | None:
    if family.default_template is None:
        return None
    template = find_template(family.default_template)[1]
    return ChosenTemplate(template, f"it is the format of the family {family.name}")


def _own_template(info: BackendInfo, source: str) -> Template:
    bos = next((text for text, number in info.special_tokens.items() if number == info.bos_id), "")
    return Template(name="from-file", source=source, bos_token=bos, eos_token=info.eos_text, thinking=format_in(source))
