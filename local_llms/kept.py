"""Model files on this machine: pull one, and see, verify and remove those that are kept."""

from __future__ import annotations

from pathlib import Path

from local_llms.catalog import find_model
from local_llms.errors import ModelNotFound
from local_llms.hub import PREFIX, KeptModel, kept_model, kept_models, parse_hub_name, remove_unfinished
from local_llms.resolve import ModelName, find_source

__all__ = ["KeptModel", "find_kept", "kept_models", "pull", "remove", "remove_unfinished"]


def pull(model: ModelName | None = None) -> Path:
    """Fetch what ``load_model`` would load, and return the verified file. Loads nothing.

    The hub is asked for a newer version, which ``load_model`` does only for a file that is not here. Raises
    ModelNotFound, DownloadError, MissingDependency or ModelFileError.
    """
    return find_source(model, None).path(refresh=True)


def find_kept(name: str) -> list[KeptModel]:
    """What is kept under a name of the catalog, ``hf:org/repo:file`` or ``hf:org/repo``. Raises ModelNotFound."""
    if name.startswith(PREFIX):
        parse_hub_name(name)
        return kept_model(name)
    try:
        sources = find_model(name).sources
    except ModelNotFound:
        sources = ()
    return kept_model(name, sources)


def remove(name: str) -> int:
    """Remove what is kept under a name; the bytes that are free now. Raises ModelNotFound."""
    return sum(kept.remove() for kept in find_kept(name))
