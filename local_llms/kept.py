"""Model files on this machine: pull one, and see, verify and remove those that are kept."""

from __future__ import annotations

from pathlib import Path

from local_llms.catalog import list_adapters, list_models
from local_llms.hub import PREFIX, KeptModel, kept_model, kept_models, parse_hub_name, remove_unfinished, size_of
from local_llms.resolve import ModelName, find_source

__all__ = ["KeptModel", "find_kept", "kept_models", "pull", "remove", "remove_unfinished", "size_of"]


def pull(model: ModelName | None = None) -> Path:
    """Fetch what ``load_model`` would load, and return the verified file or folder. Loads nothing.

    Of an adapter of the catalog it is the adapter alone: its base is a model of its own. The hub is asked for a newer
    version, which ``load_model`` does only for a file that is not here. Raises ModelNotFound, DownloadError,
    MissingDependency or ModelFileError.
    """
    source = find_source(model, None)
    adapter = source.adapter_path(refresh=True)
    return source.path(refresh=True) if adapter is None else adapter


def find_kept(name: str) -> list[KeptModel]:
    """What is kept under a name of the catalog, ``hf:org/repo:file`` or ``hf:org/repo``. Raises ModelNotFound."""
    if name.startswith(PREFIX):
        parse_hub_name(name)
        return kept_model(name)
    cards = [card for card in (*list_models(), *list_adapters()) if card.name == name]
    return kept_model(name, cards[0].sources if cards else ())


def remove(name: str) -> int:
    """Remove what is kept under a name; the bytes that are free now. Raises ModelNotFound."""
    return sum(kept.remove() for kept in find_kept(name))
