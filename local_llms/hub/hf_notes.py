"""Notes of which files a repository's name stood for, so that it can be answered again without asking the hub.

A note is written once all files of a model are here and verified. It lies in this package's own cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from local_llms.hub.hf_cache import Repository
from local_llms.hub.names import check_path
from local_llms.hub.selection import Selection, Want
from local_llms.paths import cache_dir

_MOST_BYTES = 4 << 20


def notes_folder(repository: Repository) -> Path:
    """Where this package keeps what it knows of a repository's files."""
    return cache_dir() / "hub" / repository.folder.name


def read_note(repository: Repository, commit: str, want: Want) -> Selection | None:
    """The files of the model at that commit; None where there is no sound note."""
    try:
        path = _place(repository, commit, want)
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(path.read_bytes())
        files = tuple(check_path(file) for file in data["files"])
        return Selection(files, data["folder"] is True) if files else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_note(repository: Repository, commit: str, want: Want, selection: Selection) -> None:
    """Write the note, whole or not at all; where the folder cannot be written the hub is asked each time instead."""
    path = _place(repository, commit, want)
    draft = path.with_name(f".partial-{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"files": selection.files, "folder": selection.folder}), "utf-8")
        os.replace(draft, path)
    except OSError:
        return


def _place(repository: Repository, commit: str, want: Want) -> Path:
    key = hashlib.sha256(f"{repository.snapshot(commit)} {want}".encode()).hexdigest()[:32]
    return notes_folder(repository) / f"{key}.files.json"
