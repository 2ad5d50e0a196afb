"""Model files that were made from another one on this machine, once, and are kept in the cache.

They are known by the content of the file that they were made from, whatever its name and place, and lie with the other
models: ``local-llms cache`` lists and removes them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from local_llms.errors import ModelFileError
from local_llms.hub.cache import Record, Slot, digest, read_record, sync_file, write_record
from local_llms.hub.lock import file_lock
from local_llms.hub.storage import no_room, storage_errors
from local_llms.paths import HOME_VARIABLE, cache_dir

_PARTIAL = ".partial-"


def derived(sources: Sequence[Path], recipe: str, suffix: str, make: Callable[[Path], None], *, size: int) -> Path:
    """The file that ``make`` writes from ``sources`` to the path that it is given; made where it is not there yet.

    ``recipe`` names what is done, and becomes a part of the file's name: another one, or other content of the sources,
    makes another file. ``size``: the bytes that it will have at most. Several processes at once make it once; one that
    is killed leaves nothing that counts as good.

    Raises what ``make`` raises, ModelFileError where a source cannot be read, and DownloadError where the cache has no
    room or cannot be written.
    """
    first = sources[0]
    origin = hashlib.sha256(" ".join([recipe, *map(content_digest, sources)]).encode()).hexdigest()
    name = f"{first.stem}-{recipe}-{origin[:12]}"
    return keep(name, f"{first.stem}-{recipe}{suffix}", origin, lambda: make, size=size)


def keep(
    name: str, file_name: str, origin: str, prepare: Callable[[], Callable[[Path], None]], *, size: int = 0
) -> Path:
    """A file in the cache's folder ``name``, made where it is not there yet.

    ``origin`` tells what it is made from: a file of another one does not count. ``prepare`` looks at the sources and
    gives the function that writes the file to a path; what it raises leaves nothing behind. ``size`` as in ``derived``.
    Raises what both raise, and DownloadError.
    """
    folder = cache_dir() / "models" / name
    target = folder / file_name
    slot = Slot(target, target.with_name(f"{target.name}.verified.json"), origin, None)
    with storage_errors(name, folder, HOME_VARIABLE):
        if slot.is_good():
            return target
    make = prepare()
    with storage_errors(name, folder, HOME_VARIABLE):
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock"):
            if not slot.is_good():
                _make(slot, name, make, size)
    return target


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content. It is remembered in the cache for as long as the file does not change.

    Raises ModelFileError where the file cannot be read.
    """
    try:
        real = path.resolve(strict=True)
        status = real.stat()
        note = cache_dir() / "digests" / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
        known = read_record(note)
        if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return known.sha256
        found = digest(real)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_record(note, Record(status.st_size, status.st_mtime_ns, found, str(real)))
    except OSError:
        # It is worked out again the next time.
        return found
    return found


def _make(slot: Slot, name: str, make: Callable[[Path], None], size: int) -> None:
    folder = slot.path.parent
    for left in folder.glob(f"{_PARTIAL}*"):
        # What a killed process left: nobody else is at work here, since the lock is held.
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        what = f"{size / 1e6:.0f} MB are needed for it, and {free / 1e6:.0f} MB are free"
        raise no_room(name, folder, what, HOME_VARIABLE)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=folder) as scratch:
        draft = Path(scratch) / slot.path.name
        make(draft)
        sync_file(draft)
        slot.accept(draft, digest(draft))
