"""Which model files are kept on this machine: listed, verified, removed.

Those out of packages lie in this package's own cache; those of the Hugging Face hub in the cache that is shared with
other tools, and every GGUF file there counts, whoever fetched it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_llms.errors import ModelNotFound
from local_llms.hub.cache import Slot, read_record
from local_llms.hub.hf_cache import Repository, hub_cache
from local_llms.hub.hf_fetch import HubFetch
from local_llms.hub.lock import file_lock
from local_llms.hub.names import PREFIX, HubName, all_parts, check_repository, is_later_part
from local_llms.hub.source import HubSource
from local_llms.hub.storage import storage_errors
from local_llms.paths import cache_dir

_RECORD = ".verified.json"


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model that is kept: its name, and its file or files. ``folder`` is that of the package or the repository."""

    name: str
    folder: Path
    slots: tuple[Slot, ...]

    @property
    def path(self) -> Path:
        """The file, the first one of several."""
        return self.slots[0].path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(slot.path.stat().st_size for slot in self.slots)

    def verify(self) -> bool | None:
        """Whether the content has the digest that it must have; None where no digest is known.

        All of it is hashed. A damaged file counts as good no more: it is fetched again when it is used.
        """
        with storage_errors(self.name, self.folder):
            if any(slot.wanted is None for slot in self.slots):
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
        with storage_errors(self.name, self.folder):
            return sum(_remove(slot) for slot in self.slots)


def kept_models() -> list[KeptModel]:
    """Every model that is kept here, by name. Raises DownloadError where a cache cannot be read."""
    with storage_errors("list", hub_cache()):
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

    A download that is under way is left alone.
    """
    freed = 0
    with storage_errors(name or "list", hub_cache()):
        for partial in hub_cache().glob("models--*/blobs/*.local-llms.incomplete"):
            folder = partial.parent.parent
            if name is not None and folder.name != f"models--{name.replace('/', '--')}":
                continue
            lock = hub_cache() / ".locks" / folder.name / partial.name.replace(".incomplete", ".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(lock, wait=False) as held:
                if held and partial.exists():
                    freed += partial.stat().st_size
                    partial.unlink()
    return freed


def _of_packages() -> Iterator[KeptModel]:
    for folder in sorted((cache_dir() / "models").glob("*/")):
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(_RECORD):
                record_path = path.with_name(path.name + _RECORD)
                record = read_record(record_path)
                origin = record.origin if record else ""
                yield KeptModel(folder.name, folder, (Slot(path, record_path, origin, None),))


def _of_the_hub() -> Iterator[KeptModel]:
    for folder in sorted(hub_cache().glob("models--*--*/")):
        try:
            name = check_repository(folder.name.removeprefix("models--").replace("--", "/"))
        except ValueError:
            continue
        repository = Repository(name, folder)
        for commit in sorted(entry.name for entry in (folder / "snapshots").glob("*/")):
            files = repository.files(commit)
            for file in files:
                if file.lower().endswith(".gguf") and not is_later_part(file):
                    fetched = HubFetch(HubSource(kind="hub", repository=name, file=file))
                    parts = [part for part in all_parts(file) if part == file or part in files]
                    slots = tuple(fetched.slot(repository.pointer(commit, part), part) for part in parts)
                    yield KeptModel(f"{PREFIX}{name}:{file}", folder, slots)


def _remove(slot: Slot) -> int:
    """Remove one file, the content too unless another name leads to it."""
    path, freed = slot.path, 0
    slot.forget()
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
