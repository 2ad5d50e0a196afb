"""What goes wrong with the disk, as errors that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_llms.errors import DownloadError
from local_llms.hub.names import all_parts

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storage_errors(name: str, folder: Path, variable: str = "HF_HOME") -> Iterator[None]:
    """Turn what goes wrong while a model is written into a cache folder into DownloadError.

    ``variable`` names the one that moves the folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_room(name, folder, os.strerror(error.errno), variable) from error
        raise DownloadError(
            f"The model {name} cannot be kept in {folder}: {error}. Make the folder writable, or set {variable} to one "
            "that is."
        ) from error


@contextmanager
def cache_errors(doing: str, folder: Path) -> Iterator[None]:
    """Turn what goes wrong with what is kept already into DownloadError. ``doing``: "X cannot be removed from"."""
    try:
        yield
    except OSError as error:
        raise DownloadError(f"{doing} {folder}: {error}. Look at the permissions of that folder.") from error


def size_of(path: Path) -> int:
    """Bytes of a file with the other parts of its model, or of all files in a folder."""
    beside = [path.with_name(part) for part in all_parts(path.name)] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in beside if file.is_file())


def no_room(name: str, folder: Path, what: str, variable: str = "HF_HOME") -> DownloadError:
    """The error for a disk that has too little room."""
    return DownloadError(
        f"There is no room for the model {name} in {folder}: {what}. Make room, or set {variable} to a folder on "
        "another disk."
    )
