"""What a model's name means, and which prompt template the model gets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from local_llms.backends.base import BackendInfo
from local_llms.catalog import Family, ModelCard, Template, default_model, find_family, find_model, find_template
from local_llms.errors import ModelFileError, ModelNotFound
from local_llms.hub import fetch

ModelName = str | os.PathLike[str]

PLAIN = "plain"
"""The template that is none: what messages say, and nothing around it."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's name, understood: where its file is, and what the catalog knows of it."""

    name: str
    card: ModelCard | None
    file: Path | None

    def path(self) -> Path:
        """The local file, fetched where it is not here yet. Raises DownloadError or ModelFileError."""
        if self.file is not None:
            if not self.file.exists():
                raise ModelFileError(f"There is no file {self.file}. Give the path of a model file that exists.")
            return self.file
        if self.card is None:
            raise ModelNotFound("model", self.name, ())
        return fetch(self.card)


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A template and the reason for it, as ``local-llms info`` shows it."""

    template: Template
    reason: str


def find_source(model: ModelName | None, family: str | None) -> ModelSource:
    """Understand ``model=``: a name of the catalog, a file, or None for the default model.

    Reads no weights and fetches nothing. Raises ModelNotFound.
    """
    if model is None:
        if family is not None and find_model(default_model()).family != family:
            names = [card.name for card in find_family(family).models]
            known = f" The catalog has {', '.join(names)}." if names else ""
            raise ModelNotFound(
                "default model for the family", family, (), f'Name one: model="path/to/model.gguf".{known}'
            )
        model = default_model()
    if not isinstance(model, str):
        return ModelSource(os.fspath(model), None, Path(model))
    try:
        return ModelSource(model, find_model(model), None)
    except ModelNotFound:
        path = Path(model).expanduser()
        if os.sep in model or model.startswith(("~", ".")) or path.suffix == ".gguf" or path.exists():
            return ModelSource(model, None, path)
        raise


def choose_template(
    explicit: str | None, family: str | None, card: ModelCard | None, info: BackendInfo
) -> ChosenTemplate | None:
    """The template of a loaded model; None where nothing tells which one is right.

    An explicit name comes first. A family class stands for its own format, whatever file it is given, but leaves a
    model of that family its own variant; a family whose format is "plain" has none of its own. Then the catalog knows
    best, then the file itself, then the family's "plain".
    """
    if explicit is not None:
        return ChosenTemplate(find_template(explicit)[1], f"template={explicit!r} was given")
    own = None
    if family is not None and (card is None or card.family != family):
        own = _family_template(find_family(family))
        if own is not None and own.template.name != PLAIN:
            return own
    if card is not None and card.template is not None:
        return ChosenTemplate(find_template(card.template)[1], f"the catalog says so for {card.name}")
    if info.chat_template is not None:
        return ChosenTemplate(_own_template(info, info.chat_template), "the model file carries it")
    return own


def _family_template(family: Family) -> ChosenTemplate | None:
    if family.default_template is None:
        return None
    template = find_template(family.default_template)[1]
    return ChosenTemplate(template, f"it is the format of the family {family.name}")


def _own_template(info: BackendInfo, source: str) -> Template:
    bos = next((text for text, number in info.special_tokens.items() if number == info.bos_id), "")
    return Template(name="from-file", source=source, bos_token=bos, eos_token=info.eos_text)
