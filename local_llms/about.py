"""What a model is and what would be chosen for it, without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from local_llms import backends
from local_llms.backends.base import BackendInfo
from local_llms.catalog import AdapterCard, ModelCard, find_template
from local_llms.catalog.schema import CommercialUse, HubSource, ModelKind, PackageSource
from local_llms.hub import cached, size_of
from local_llms.hub.adapter_facts import AdapterFacts, adapter_facts_of
from local_llms.hub.facts import facts_of
from local_llms.hub.file_facts import FileFacts
from local_llms.options import LoadingOptions, parse_options
from local_llms.resolve import ModelName, ModelSource, choose_template, find_source


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a model or adapter. Sizes in bytes, 0 or None where unknown; ``path`` is None while it is not
    here.

    ``kind`` is "adapter" where what was named makes nothing by itself, and is given as ``adapter=`` beside a model.
    """

    name: str
    path: Path | None
    size: int | None
    download: int | None
    kind: ModelKind | Literal["adapter"]
    family: str | None
    architecture: str | None
    parameters: int
    layers: int
    vocabulary_size: int
    vocabulary: str
    """Which vocabulary it is and why, in words, where the model's file does not carry it."""
    quantization: str | None
    trained_context_length: int
    template: str | None
    template_reason: str
    thinks: bool
    """Whether the template is of models that can think before they answer."""
    backend: str | None
    backend_reason: str
    licence: str
    licence_source: str
    commercial_use: CommercialUse
    notes: str
    adapter: str | None = None
    """The catalog's adapter that was named, which is used over the model."""
    change: str | None = None
    """What an adapter does to a model, in words."""
    base: str | None = None
    """What an adapter calls the model that it was trained on; None where it does not tell."""
    can_be_fetched: bool = False
    """Whether somebody offers the files; where not, ``notes`` say how one comes by them."""


def describe(model: ModelName | None = None, *, family: str | None = None, **loading: Any) -> About:
    """What ``load_model`` with the same arguments would load. Reads the file's header; fetches and loads nothing.

    An adapter's folder or file is described too, though nothing is loaded of it alone. Raises ModelNotFound,
    ModelFileError, AdapterError, OptionError or UnknownOption.
    """
    options = parse_options(LoadingOptions, "describe()", loading)
    if options.template is not None:
        find_template(options.template)
    source = find_source(model, family)
    card = source.card
    path = source.here()
    change = None if path is None else adapter_facts_of(path)
    if path is not None and change is not None:
        return _of_adapter(source, path, change)
    facts = FileFacts() if path is None else facts_of(path)
    backend, backend_reason = None, "chosen once the file is here"
    if path is not None:
        module, backend_reason = backends.choose(path, options.backend)
        backend = module.NAME
    chosen = choose_template(options.template, family, card, _as_backend_info(facts))
    return About(
        name=source.name,
        path=path,
        size=size_of(path) if path is not None else card.size if card else None,
        download=_download_size(card),
        kind=card.kind if card else "embed" if facts.embeds else "generate",
        family=card.family if card else family,
        architecture=facts.architecture,
        parameters=facts.parameters or (card.parameters if card else 0),
        layers=facts.layers,
        vocabulary_size=facts.vocabulary_size,
        vocabulary=facts.vocabulary,
        quantization=facts.quantization,
        trained_context_length=facts.context_length or (card.context_length if card else 0),
        template=chosen.template.name if chosen else None,
        template_reason=chosen.reason if chosen else "nothing tells which one is right; give template=",
        thinks=chosen is not None and chosen.template.thinking is not None,
        backend=backend,
        backend_reason=backend_reason,
        licence=card.licence if card else facts.licence or "unknown",
        licence_source=card.licence_source if card else "",
        commercial_use=card.commercial_use if card else "unknown",
        notes=card.notes if card else "",
        adapter=f"{source.adapter.name} over {source.adapter.base}" if source.adapter else None,
        can_be_fetched=source.hub is not None or bool(card and card.sources),
    )


def _of_adapter(source: ModelSource, path: Path, facts: AdapterFacts) -> About:
    return About(
        name=source.name,
        path=path,
        size=size_of(path),
        download=None,
        kind="adapter",
        family=None,
        architecture=facts.architecture,
        parameters=facts.parameters,
        layers=0,
        vocabulary_size=0,
        vocabulary="",
        quantization=facts.quantization,
        trained_context_length=0,
        template=None,
        template_reason="an adapter is asked in the template of its model, or in one given as template=",
        thinks=False,
        backend=None,
        backend_reason="that of its model, which is loaded with adapter=",
        licence="unknown",
        licence_source="",
        commercial_use="unknown",
        notes="",
        change=facts.change,
        base=facts.base or None,
        can_be_fetched=source.hub is not None,
    )


def size_here(card: ModelCard | AdapterCard) -> int | None:
    """Bytes of a model or adapter that can be used without fetching anything; None where it is not here."""
    path = cached(card, want="adapter" if isinstance(card, AdapterCard) else "model")
    return None if path is None else size_of(path)


def _download_size(card: ModelCard | None) -> int | None:
    if card is None:
        return None
    for source in card.sources:
        if isinstance(source, PackageSource):
            return source.wheel_size
        if isinstance(source, HubSource):
            return source.size
    return None


def _as_backend_info(facts: FileFacts) -> BackendInfo:
    """As much of what a backend would tell as the choice of a template asks for."""
    return BackendInfo(
        backend="",
        architecture=facts.architecture or "",
        parameters=0,
        vocabulary_size=0,
        context_length=0,
        trained_context_length=0,
        cache_tokens=0,
        max_sequences=0,
        batch_tokens=0,
        bos_id=None,
        end_ids=frozenset(),
        adds_bos=False,
        chat_template=facts.chat_template,
        template=facts.template,
    )
