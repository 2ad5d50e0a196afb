"""The contents of files from the hub: looked for where other tools may have put them, fetched, verified, named."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_llms.errors import ChecksumMismatch
from local_llms.hub.cache import sync_file, sync_folder
from local_llms.hub.hf_ask import HubFile
from local_llms.hub.hf_cache import SHA256, Repository
from local_llms.hub.hf_transfer import transfer
from local_llms.hub.lock import file_lock
from local_llms.hub.names import HubName
from local_llms.hub.progress import Progress
from local_llms.hub.storage import no_room

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of one repository. ``sha256``: what the catalog says of the one file that is fetched, or None."""

    repository: Repository
    name: HubName
    sha256: str | None

    def present(self, file: HubFile) -> str | None:
        """The SHA-256 of a file whose verified content is here, whoever fetched it; None where it is not."""
        blob, pointer = self.repository.blob(file.etag), self.repository.pointer(file.commit, file.name)
        for place in (blob, pointer):
            if not place.is_file() or (place is pointer and pointer.is_symlink()):
                continue
            sha256 = _verified(place, file, self.sha256)
            if sha256 is not None:
                return sha256
        return None

    def bring(self, files: Sequence[HubFile], progress: Progress) -> list[str]:
        """The SHA-256 of each file, once all of them are here.

        Raises DownloadError (OfflineError, ChecksumMismatch), or OSError from the disk.
        """
        found = [self.present(file) for file in files]
        missing = [file for file, sha256 in zip(files, found, strict=True) if sha256 is None]
        if missing:
            self._check_room(missing)
            total = sum(file.size for file in files)
            bar = _Bar(progress, total - sum(file.size for file in missing))
            progress.start(str(self.name), total)
            try:
                fetched = {file.name: self._fetch(file, bar) for file in missing}
            finally:
                progress.finish()
            return [sha256 or fetched[file.name] for file, sha256 in zip(files, found, strict=True)]
        return [sha256 for sha256 in found if sha256 is not None]

    def link(self, file: HubFile, *, shared: bool = False) -> Path:
        """Make the file's name lead to its content; where the system has no links, move the content to the name.

        ``shared``: another name is still to lead to the same content, which is then copied instead of moved.
        """
        blob, pointer = self.repository.blob(file.etag), self.repository.pointer(file.commit, file.name)
        if pointer.is_file() and not pointer.is_symlink() and not blob.is_file():
            return pointer
        draft = pointer.with_name(f"{pointer.name}.{os.getpid()}.incomplete")
        draft.unlink(missing_ok=True)
        try:
            draft.symlink_to(os.path.relpath(blob, pointer.parent))
        except (OSError, NotImplementedError):
            if not shared:
                draft = blob
            else:
                shutil.copyfile(blob, draft)
                sync_file(draft)
        os.replace(draft, pointer)
        sync_folder(pointer.parent)
        return pointer

    def _fetch(self, file: HubFile, bar: _Bar) -> str:
        """Put one content in its place, and return its SHA-256."""
        blob, partial = self.repository.blob(file.etag), self.repository.partial(file.etag)
        with file_lock(self.repository.lock(file.etag)):
            # Whoever had the lock may have fetched it, as a file of another model.
            sha256 = self.present(file)
            if sha256 is None:
                resumed = partial.exists() and partial.stat().st_size > 0
                sha256 = self._arrive(file, partial, bar)
                if sha256 is None and resumed:
                    # What was left from before may have been wrong: once more, from the start.
                    sha256 = self._arrive(file, partial, bar)
                if sha256 is None:
                    raise ChecksumMismatch(
                        f"What came for {file.name} of {self.name} is not the file that the hub promises: its digest "
                        f"is not {self.sha256 or file.etag}. Nothing of it was kept; fetch it again."
                    )
                sync_file(partial)
                os.replace(partial, blob)
                sync_folder(blob.parent)
        bar.next(file.size)
        return sha256

    def _arrive(self, file: HubFile, partial: Path, bar: _Bar) -> str | None:
        transfer(HubName(self.name.repository, file.name), file, partial, bar)
        sha256 = _verified(partial, file, self.sha256)
        if sha256 is None:
            partial.unlink()
        return sha256

    def _check_room(self, missing: Sequence[HubFile]) -> None:
        folder = self.repository.folder / "blobs"
        partials = [self.repository.partial(file.etag) for file in missing]
        have = sum(partial.stat().st_size for partial in partials if partial.exists())
        need, free = sum(file.size for file in missing) - have, shutil.disk_usage(folder).free
        if free < need:
            what = f"{need / 1e6:.0f} MB are needed for it, and {free / 1e6:.0f} MB are free"
            raise no_room(str(self.name), folder, what)


class _Bar:
    """Progress over several files, which ``transfer`` reports one by one."""

    def __init__(self, progress: Progress, done: int) -> None:
        self._progress = progress
        self._done = done

    def start(self, name: str, total_bytes: int) -> None:
        """Nothing: the download of all files has begun already."""

    def advance_to(self, done_bytes: int) -> None:
        """So many bytes of the file that is under way are there."""
        self._progress.advance_to(self._done + done_bytes)

    def finish(self) -> None:
        """Nothing: more files may come."""

    def next(self, size: int) -> None:
        """A file of that size is complete."""
        self._done += size
        self._progress.advance_to(self._done)


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
