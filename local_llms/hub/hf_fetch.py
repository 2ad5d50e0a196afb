"""From a file's name on the Hugging Face hub to a verified file in the cache that is shared with other tools."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from local_llms.errors import ChecksumMismatch, DownloadError, MissingDependency
from local_llms.hub.cache import Record, Slot, sync_file, sync_folder
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.hf_ask import HubFile, ask_file, ask_models, only_models
from local_llms.hub.hf_cache import COMMIT, SHA256, Repository, etag_of, offline_variable
from local_llms.hub.hf_transfer import transfer
from local_llms.hub.lock import file_lock
from local_llms.hub.names import DEFAULT_REVISION, HubName, all_parts
from local_llms.hub.progress import Progress, default_progress
from local_llms.hub.source import HubSource
from local_llms.hub.storage import no_room, storage_errors
from local_llms.paths import cache_dir

_BLOCK = 1 << 20


def find_in_repository(name: HubName) -> HubSource:
    """The file that a name means; without one, the repository's one GGUF model.

    Asks the hub which files there are. Where it cannot be asked, the one model that is here is taken. Raises
    DownloadError, listing the choices where there are several, or OfflineError.
    """
    if name.file is not None:
        return _source(name, name.file)
    try:
        models = ask_models(name, DEFAULT_REVISION)
    except (DownloadError, MissingDependency):
        here = find_here(name)
        if here is None:
            raise
        return here
    if not models:
        raise DownloadError(
            f"{name.repository} has no GGUF file, which is what can be loaded from the hub. Look for a repository with "
            "the model as GGUF."
        )
    if len(models) > 1:
        shown = ", ".join(models[:20]) + (", …" if len(models) > 20 else "")
        raise DownloadError(
            f"{name.repository} has several models; name one, such as {name}:{models[0]}. It has {shown}."
        )
    return _source(name, models[0])


def find_here(name: HubName) -> HubSource | None:
    """What a name means by the files that are here; None where that is not one model."""
    if name.file is not None:
        return _source(name, name.file)
    models = only_models(Repository.of(name.repository).files(DEFAULT_REVISION))
    return _source(name, models[0]) if len(models) == 1 else None


def _source(name: HubName, file: str) -> HubSource:
    return HubSource(kind="hub", repository=name.repository, file=file)


class HubFetch:
    """One model of the hub: in one file, or in several parts."""

    def __init__(self, source: HubSource) -> None:
        self.source = source
        self.name = HubName(source.repository, source.file)
        self.repository = Repository.of(source.repository)

    def here(self) -> Path | None:
        """The verified file in the cache, the first one of several; None where one is missing or not good."""
        commit = self.repository.commit(self.source.revision)
        if commit is None:
            return None
        slots = [self.slot(self.repository.pointer(commit, file), file) for file in all_parts(self.source.file)]
        if all(slot.is_recorded() for slot in slots):
            return slots[0].path
        records = [slot.verify() for slot in slots]
        if any(record is None for record in records):
            return None
        return _accept(slots, [record for record in records if record is not None])

    def run(self, progress: Progress | None, *, refresh: bool = False) -> Path:
        """The verified file, fetched where it is not here. ``refresh``: the hub is asked for a newer one in any case.

        Raises DownloadError (OfflineError, ChecksumMismatch), MissingDependency, or ModelFileError where the file is
        what the hub has, and no sound model.
        """
        with storage_errors(str(self.name), self.repository.folder):
            here = self.here()
            if here is not None and (not refresh or offline_variable()):
                return here
            fetched = [self._fetch(file, progress or default_progress()) for file in all_parts(self.source.file)]
            return _accept([slot for slot, _ in fetched], [record for _, record in fetched])

    def slot(self, pointer: Path, file: str, etag: str | None = None) -> Slot:
        """What is known of one file: its digest is the catalog's, or the hub's."""
        etag = etag or etag_of(pointer)
        known = self.source.sha256 or (etag if etag and SHA256.fullmatch(etag) else None)
        folder = cache_dir() / "hub" / self.repository.folder.name
        record = hashlib.sha256(str(pointer).encode()).hexdigest()[:32]
        return Slot(pointer, folder / f"{record}.verified.json", f"{self.source.repository}/{file}", known)

    def _fetch(self, file: str, progress: Progress) -> tuple[Slot, Record]:
        found = ask_file(self.name, file, self.source.revision)
        self._compare_with_catalog(found)
        pointer = self.repository.pointer(found.commit, file)
        blob, lock = self.repository.blob(found.etag), self.repository.lock(found.etag)
        for folder in (blob.parent, pointer.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with file_lock(lock):
            slot = self.slot(pointer, file, found.etag)
            record = slot.verify()
            if record is None:
                sha256 = self._content(found, blob, pointer, progress)
                _link(blob, pointer)
                stat = pointer.stat()
                record = Record(stat.st_size, stat.st_mtime_ns, sha256, slot.origin)
            self._remember_revision(found.commit)
        return slot, record

    def _content(self, found: HubFile, blob: Path, pointer: Path, progress: Progress) -> str:
        """Put the content in its place, and return its SHA-256. It may be there already, fetched by another tool."""
        for place in (blob, pointer):
            if not place.is_file() or (place is pointer and pointer.is_symlink()):
                continue
            sha256 = _verified(place, found, self.source.sha256)
            if sha256 is not None:
                if place is pointer:
                    os.replace(pointer, blob)
                return sha256
        partial = self.repository.partial(found.etag)
        resumed = partial.exists() and partial.stat().st_size > 0
        sha256 = self._arrive(found, partial, progress)
        if sha256 is None and resumed:
            # What was left from before may have been wrong: once more, from the start.
            sha256 = self._arrive(found, partial, progress)
        if sha256 is None:
            raise ChecksumMismatch(
                f"What came for {self.name} is not the file that the hub promises: its digest is not "
                f"{self.source.sha256 or found.etag}. Nothing of it was kept; fetch it again."
            )
        sync_file(partial)
        os.replace(partial, blob)
        sync_folder(blob.parent)
        return sha256

    def _arrive(self, found: HubFile, partial: Path, progress: Progress) -> str | None:
        have = partial.stat().st_size if partial.exists() else 0
        need, free = found.size - have, shutil.disk_usage(partial.parent).free
        if free < need:
            raise no_room(
                str(self.name),
                partial.parent,
                f"{need / 1e6:.0f} MB are needed for it, and {free / 1e6:.0f} MB are free",
            )
        progress.start(str(self.name), found.size)
        try:
            transfer(self.name, found, partial, progress)
        finally:
            progress.finish()
        sha256 = _verified(partial, found, self.source.sha256)
        if sha256 is None:
            partial.unlink()
        return sha256

    def _compare_with_catalog(self, found: HubFile) -> None:
        wanted = self.source.sha256
        other_digest = wanted is not None and SHA256.fullmatch(found.etag) and found.etag != wanted
        if other_digest or self.source.size not in (None, found.size):
            raise ChecksumMismatch(
                f"The hub has another file under the name {self.name} than the catalog means: "
                f"{found.size} bytes with the digest {found.etag}. It was not fetched; {self.name} as the name of the "
                "model loads what is there now."
            )

    def _remember_revision(self, commit: str) -> None:
        """Note which commit a branch stands for, as other tools do."""
        if COMMIT.fullmatch(self.source.revision):
            return
        path = self.repository.folder / "refs" / self.source.revision
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
        draft.write_text(commit, "utf-8")
        os.replace(draft, path)


def _verified(path: Path, found: HubFile, wanted: str | None) -> str | None:
    """The SHA-256 of a file that has the size and the digest of ``found``; None where it has others."""
    size = path.stat().st_size
    if size != found.size:
        return None
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    by_git = not SHA256.fullmatch(found.etag)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            if by_git:
                git.update(block)
    digests = (git.hexdigest() if by_git else sha256.hexdigest(), wanted and sha256.hexdigest())
    return sha256.hexdigest() if digests == (found.etag, wanted) else None


def _accept(slots: list[Slot], records: list[Record]) -> Path:
    """The first of a model's files, all good from now on. Raises ModelFileError where they are no sound model."""
    path = slots[0].path
    if path.suffix.lower() == ".gguf":
        check_gguf(path)
    for slot, record in zip(slots, records, strict=True):
        slot.remember(record)
    return path


def _link(blob: Path, pointer: Path) -> None:
    """Make the name lead to the content; where the system has no links, move the content to the name."""
    draft = pointer.with_name(f"{pointer.name}.{os.getpid()}.incomplete")
    draft.unlink(missing_ok=True)
    try:
        draft.symlink_to(os.path.relpath(blob, pointer.parent))
    except (OSError, NotImplementedError):
        os.replace(blob, pointer)
    else:
        os.replace(draft, pointer)
    sync_folder(pointer.parent)
