"""From a model's name on the Hugging Face hub to verified files in the cache that is shared with other tools."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from local_llms.errors import ChecksumMismatch, DownloadError, MissingDependency, ModelFileError, OfflineError
from local_llms.hub.cache import Record, Slot
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.hf_ask import HubFile, ask_file, ask_listing
from local_llms.hub.hf_cache import COMMIT, SHA256, Repository, etag_of, offline_variable
from local_llms.hub.hf_content import Contents
from local_llms.hub.hf_notes import notes_folder, read_note, write_note
from local_llms.hub.lock import file_lock
from local_llms.hub.names import HubName, all_parts
from local_llms.hub.progress import Progress, default_progress
from local_llms.hub.selection import MOST_INDEX_BYTES, Selection, Want, choose, the_one, with_shards
from local_llms.hub.source import HubSource
from local_llms.hub.storage import storage_errors


class HubFetch:
    """One model, or adapter, of the hub: in one file, in several parts, or as a folder of files."""

    def __init__(self, source: HubSource, want: Want = "model") -> None:
        self.source = source
        self.want = want
        self.name = HubName(source.repository, source.file)
        self.repository = Repository.of(source.repository)
        self.contents = Contents(self.repository, self.name, source.sha256)

    def here(self) -> Path | None:
        """The verified file in the cache, the first one of several, or the folder; None where one is missing or bad.

        Where no file is named this is what the name stood for when it was fetched; only the hub knows what else there
        is.
        """
        commit = self.repository.commit(self.source.revision)
        selection = None if commit is None else self._fetched(commit)
        return None if commit is None or selection is None else self._good(commit, selection)

    def found(self) -> Path | None:
        """``here``, or else the one model that the files in the cache are, whoever fetched them."""
        here = self.here()
        commit = self.repository.commit(self.source.revision)
        if here is not None or commit is None or self.source.file is not None:
            return here
        selection = chosen_here(self.repository, commit, self.want)
        return None if selection is None else self._good(commit, selection)

    def run(self, progress: Progress | None, *, refresh: bool = False) -> Path:
        """The verified file or folder, fetched where it is not here. ``refresh``: the hub is asked in any case.

        Raises DownloadError (OfflineError, ChecksumMismatch), MissingDependency, or ModelFileError where the files are
        what the hub has, and no sound model.
        """
        with storage_errors(str(self.name), self.repository.folder):
            offline = offline_variable() is not None
            here = self.found() if offline else self.here()
            if here is not None and (offline or not refresh):
                return here
            try:
                files, selection = self._ask(progress or default_progress())
            except (DownloadError, MissingDependency) as error:
                found = None if refresh else self.found()
                if found is not None:
                    return found
                if isinstance(error, OfflineError) and self._is_damaged():
                    raise OfflineError(f"{error} What is here under that name is damaged.") from None
                raise
            return self._bring(files, selection, progress or default_progress())

    def slot(self, pointer: Path, file: str, etag: str | None = None) -> Slot:
        """What is known of one file: its digest is the catalog's, or the hub's."""
        etag = etag or etag_of(pointer)
        known = self.source.sha256 or (etag if etag and SHA256.fullmatch(etag) else None)
        git = etag if etag and COMMIT.fullmatch(etag) else None
        record = hashlib.sha256(str(pointer).encode()).hexdigest()[:32]
        place = notes_folder(self.repository) / f"{record}.verified.json"
        return Slot(pointer, place, f"{self.source.repository}/{file}", known, git)

    def _ask(self, progress: Progress) -> tuple[list[HubFile], Selection]:
        """What the hub says of the files of the model, all of one commit."""
        if self.source.file is not None:
            selection = Selection(all_parts(self.source.file))
            files = [ask_file(self.name, selection.files[0], self.source.revision)]
            files += [ask_file(self.name, part, files[0].commit) for part in selection.files[1:]]
            self._compare_with_catalog(files[0])
            return files, selection
        listing = ask_listing(self.name, self.source.revision)

        @cache
        def told(file: str) -> HubFile:
            return listing.files[file] or ask_file(self.name, file, listing.commit)

        selection = choose(self.name, listing.files, self.want)
        # The list of a repository can be seen by all; whether its files are open to this user, only they tell.
        first = ask_file(self.name, selection.files[0], listing.commit)
        if selection.index is not None:
            index = told(selection.index)
            if index.size > MOST_INDEX_BYTES:
                raise ModelFileError(f"{index.name} of {self.name} has {index.size} bytes: it is no index of weights.")
            self._make_folders([index])
            self.contents.bring([index], progress)
            selection = with_shards(selection, self._content_of(index).read_bytes(), listing.files)
        absent = [file for file in selection.files if file not in listing.files]
        if absent:
            raise DownloadError(f"{self.source.repository} has a model in several files, and no file {absent[0]}.")
        return [first, *(told(file) for file in selection.files[1:])], selection

    def _bring(self, files: list[HubFile], selection: Selection, progress: Progress) -> Path:
        """Fetch what is missing, then give all files their names: before the last has come, none counts."""
        commit = files[0].commit
        self._make_folders(files)
        key = hashlib.sha256("\n".join(selection.files).encode()).hexdigest()[:16]
        with file_lock(self.repository.lock(f"{commit}-{key}")):
            # Whoever had the lock may have done it all.
            here = self._good(commit, selection, recorded_only=True)
            if here is None:
                digests = self.contents.bring(files, progress)
                pointers = [
                    self.contents.link(file, shared=any(other.etag == file.etag for other in files[number + 1 :]))
                    for number, file in enumerate(files)
                ]
                _check(pointers)
                for file, pointer, sha256 in zip(files, pointers, digests, strict=True):
                    slot, stat = self.slot(pointer, file.name, file.etag), pointer.stat()
                    slot.remember(Record(stat.st_size, stat.st_mtime_ns, sha256, slot.origin))
                here = self._place(commit, selection)
            if self.source.file is None:
                write_note(self.repository, commit, self.want, selection)
            self._remember_revision(commit)
        return here

    def _fetched(self, commit: str) -> Selection | None:
        """The files that were fetched, as far as that is known without looking for them."""
        if self.source.file is not None:
            return Selection(all_parts(self.source.file))
        return read_note(self.repository, commit, self.want)

    def _is_damaged(self) -> bool:
        """Whether the files are here, and not as they should be."""
        commit = self.repository.commit(self.source.revision)
        selection = None if commit is None else self._fetched(commit)
        if commit is None or selection is None:
            return False
        files = [self.repository.pointer(commit, file) for file in selection.files]
        return any(file.is_file() for file in files) and self._good(commit, selection) is None

    def _good(self, commit: str, selection: Selection, *, recorded_only: bool = False) -> Path | None:
        """Where the model is, if all its files are here and good. Hashes those that changed since they were seen."""
        slots = [self.slot(self.repository.pointer(commit, file), file) for file in selection.files]
        changed = [slot for slot in slots if not slot.is_recorded()]
        if changed and (recorded_only or not all(slot.path.is_file() for slot in slots)):
            return None
        records = [slot.verify() for slot in changed]
        if None in records:
            return None
        if changed:
            _check(slot.path for slot in slots)
        for slot, record in zip(changed, records, strict=True):
            if record is not None:
                slot.remember(record)
        return self._place(commit, selection)

    def _place(self, commit: str, selection: Selection) -> Path:
        if selection.folder:
            return self.repository.snapshot(commit)
        return self.repository.pointer(commit, selection.files[0])

    def _content_of(self, file: HubFile) -> Path:
        blob = self.repository.blob(file.etag)
        return blob if blob.is_file() else self.repository.pointer(file.commit, file.name)

    def _make_folders(self, files: Iterable[HubFile]) -> None:
        folders = {self.repository.pointer(file.commit, file.name).parent for file in files}
        for folder in (self.repository.folder / "blobs", self.repository.locks, *folders):
            folder.mkdir(parents=True, exist_ok=True)

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


def chosen_here(repository: Repository, commit: str, want: Want) -> Selection | None:
    """The one model that a repository's files in the cache are; None where they are none, several, or not all."""
    files = repository.files(commit)
    selection = the_one(files, want)
    if selection is None:
        return None
    if selection.index is not None:
        index = repository.pointer(commit, selection.index)
        try:
            if index.stat().st_size > MOST_INDEX_BYTES:
                return None
            selection = with_shards(selection, index.read_bytes(), files)
        except (OSError, ModelFileError):
            return None
    return selection if all(file in files for file in selection.files) else None


def _check(paths: Iterable[Path]) -> None:
    """Raise ModelFileError where a GGUF file is no sound model; of one in several parts the first tells of all."""
    first = next(iter(paths))
    if first.suffix.lower() == ".gguf":
        check_gguf(first)
