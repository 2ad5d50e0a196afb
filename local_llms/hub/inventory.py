"""Which models are kept on this machine: listed, verified, removed.

Those out of packages lie in this package's own cache; those of the Hugging Face hub in the cache that is shared with
other tools, and every model there counts, whoever fetched it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from local_llms.errors import ModelNotFound
from local_llms.hub.cache import Slot, read_record
from local_llms.hub.hf_cache import Repository, hub_cache, is_etag
from local_llms.hub.hf_fetch import HubFetch, chosen_here
from local_llms.hub.lock import file_lock
from local_llms.hub.names import HubName, all_parts, check_repository
from local_llms.hub.selection import Selection, gguf_models, single_weights
from local_llms.hub.source import HubSource
from local_llms.hub.storage import cache_errors
from local_llms.paths import cache_dir

_RECORD = ".verified.json"


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model that is kept: its name, and its file or files. ``folder`` is that of the package or the repository.

    ``path`` is the file, the first one of several parts, or the folder that the model is.
    """

    name: str
    folder: Path
    path: Path
    slots: tuple[Slot, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(slot.path.stat().st_size for slot in self.slots)

    def verify(self) -> bool | None:
        """Whether the content has the digest that it must have; None where no digest is known.

        All of it is hashed. A damaged file counts as good no more: it is fetched again when it is used.
        """
        with cache_errors(f"The model {self.name} cannot be verified in", self.folder):
            if not all(slot.has_digest for slot in self.slots):
                return None
            records = [slot.verify() for slot in self.slots]
            for slot, record in zip(self.slots, records, strict=True):
                if record is None:
                    slot.forget()
                else:
                    slot.remember(record)
            return all(record is not None for record in records)

    def remove(self) -> int:
        """Remove the files and what is known of them; the bytes that are free now."""
        with cache_errors(f"The model {self.name} cannot be removed from", self.folder):
            return sum(_remove(slot) for slot in self.slots)


def kept_models() -> list[KeptModel]:
    """Every model that is kept here, by name. Raises DownloadError where a cache cannot be read."""
    with cache_errors("The models that are kept here cannot be listed in", hub_cache()):
        return sorted([*_of_packages(), *_of_the_hub()], key=lambda kept: (kept.name, str(kept.path)))


def kept_model(name: str, sources: Sequence[object] = ()) -> list[KeptModel]:
    """What is kept under a name: a model's, ``hf:org/repo:file``, or ``hf:org/repo`` for all of a repository.

    ``sources``: those of the catalog's model of that name. Raises ModelNotFound, naming the nearest one.
    """
    known = kept_models()
    places = {str(HubName(source.repository, source.file)) for source in sources if isinstance(source, HubSource)}
    found = [kept for kept in known if kept.name == name or kept.name in places or kept.name.startswith(f"{name}:")]
    if not found:
        raise ModelNotFound("kept model", name, [kept.name for kept in known])
    return found


def remove_unfinished(name: str | None = None) -> int:
    """Remove what downloads from the hub that did not end have left, of one repository or of all; the bytes.

    That is what arrived of a content, and whole contents of a model of which others are missing still. A download that
    is under way is left alone.
    """
    with cache_errors("What broken downloads have left cannot be removed from", hub_cache()):
        folders = [folder for folder in hub_cache().glob("models--*/") if (folder / "blobs").is_dir()]
        if name is not None:
            folders = [folder for folder in folders if folder.name == f"models--{name.replace('/', '--')}"]
        return sum(_remove_unfinished(Repository(folder.name, folder)) for folder in folders)


def _remove_unfinished(repository: Repository) -> int:
    with ExitStack() as stack:
        for path in repository.locks.glob("*.lock"):
            if not stack.enter_context(file_lock(path, wait=False)):
                return 0
        named = {path.resolve() for path in (repository.folder / "snapshots").rglob("*") if path.is_symlink()}
        freed = 0
        for blob in (repository.folder / "blobs").iterdir():
            begun = blob.name.endswith(".local-llms.incomplete")
            if blob.is_file() and (begun or (is_etag(blob.name) and blob.resolve() not in named)):
                freed += blob.stat().st_size
                blob.unlink()
        return freed


def _of_packages() -> Iterator[KeptModel]:
    for folder in sorted((cache_dir() / "models").glob("*/")):
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(_RECORD):
                record_path = path.with_name(path.name + _RECORD)
                record = read_record(record_path)
                origin = record.origin if record else ""
                yield KeptModel(folder.name, folder, path, (Slot(path, record_path, origin, None),))


def _of_the_hub() -> Iterator[KeptModel]:
    for folder in sorted(hub_cache().glob("models--*--*/")):
        try:
            name = check_repository(folder.name.removeprefix("models--").replace("--", "/"))
        except ValueError:
            continue
        repository = Repository(name, folder)
        for commit in sorted(entry.name for entry in (folder / "snapshots").glob("*/")):
            files = repository.files(commit)
            for file in [*gguf_models(files), *single_weights(files)]:
                parts = tuple(part for part in all_parts(file) if part in files)
                yield _kept(repository, commit, file, Selection(parts))
            model, adapter = chosen_here(repository, commit, "model"), chosen_here(repository, commit, "adapter")
            if model is not None and adapter is not None and set(adapter.files) <= set(model.files):
                adapter = None
            for selection in (model, adapter):
                if selection is not None and selection.folder:
                    yield _kept(repository, commit, None, selection)


def _kept(repository: Repository, commit: str, file: str | None, selection: Selection) -> KeptModel:
    fetched = HubFetch(HubSource(kind="hub", repository=repository.name, file=file))
    slots = tuple(fetched.slot(repository.pointer(commit, part), part) for part in selection.files)
    path = repository.snapshot(commit) if selection.folder else slots[0].path
    return KeptModel(str(HubName(repository.name, file)), repository.folder, path, slots)


def _remove(slot: Slot) -> int:
    """Remove one file, the content too unless another name leads to it."""
    path, freed = slot.path, 0
    slot.forget()
    if not path.is_symlink() and not path.exists():
        return 0
    if path.is_symlink():
        content = path.resolve()
        path.unlink()
        top = next(parent for parent in path.parents if parent.name == "snapshots")
        if content.is_file() and not any(other.resolve() == content for other in top.rglob("*") if other.is_symlink()):
            freed = content.stat().st_size
            content.unlink()
        _remove_empty(path.parent, top.parent)
    else:
        freed = path.stat().st_size
        path.unlink()
        if not [entry for entry in path.parent.iterdir() if not entry.name.startswith(".")]:
            shutil.rmtree(path.parent)
    return freed


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
