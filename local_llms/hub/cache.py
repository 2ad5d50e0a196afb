"""Which files are known to be good.

Hashing a large file at each load would be slow, so a small JSON file beside it remembers the digest together with the
size and modification time that the file had. As long as both are the same the file counts as good; when one differs,
it is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a verified file. ``origin`` says what it is or was made from."""

    size: int
    mtime_ns: int
    sha256: str
    origin: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one file, and for what is known about it.

    ``sha256`` is the digest that the file must have; None where it was made on this machine: then it must have the
    digest that was recorded when it was made from ``origin``. ``git`` is the SHA-1 that git gives it, where that is
    known and ``sha256`` is not: so are the small files of a repository.
    """

    path: Path
    record_path: Path
    origin: str
    sha256: str | None
    git: str | None = None

    @property
    def wanted(self) -> str | None:
        """The digest that the file must have, given or recorded; None where nothing tells."""
        record = self._record()
        return self.sha256 or (record.sha256 if record else None)

    @property
    def has_digest(self) -> bool:
        """Whether anything tells what the content must be."""
        return self.wanted is not None or self.git is not None

    def is_good(self) -> bool:
        """Whether the file is there and verified; hashes it where it changed since, and remembers that it was good."""
        if self.is_recorded():
            return True
        record = self.verify()
        if record is not None:
            self.remember(record)
        return record is not None

    def is_recorded(self) -> bool:
        """Whether the file was verified as it is now, by its size and time of change. Reads none of its content."""
        record, seen = self._record(), self._stat()
        if record is None or seen is None or self.sha256 not in (None, record.sha256):
            return False
        return (record.size, record.mtime_ns) == seen

    def verify(self) -> Record | None:
        """What to remember of the file, if its content has the digest that it must have: hashes all of it."""
        wanted, seen = self.wanted, self._stat()
        if seen is None or not self.has_digest:
            return None
        sha256 = digest(self.path)
        good = sha256 == wanted if wanted is not None else git_digest(self.path) == self.git
        return Record(*seen, sha256, self.origin) if good else None

    def _record(self) -> Record | None:
        record = read_record(self.record_path)
        return record if record is not None and record.origin == self.origin else None

    def _stat(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns

    def accept(self, file: Path, sha256: str) -> None:
        """Move a complete, verified file to its place. It must lie on the same file system, and be on the disk.

        The record is written first: should the process end between the two, it describes no file that is there.
        """
        stat = file.stat()
        write_record(self.record_path, Record(stat.st_size, stat.st_mtime_ns, sha256, self.origin))
        os.replace(file, self.path)
        sync_folder(self.path.parent)

    def remember(self, record: Record) -> None:
        """Write the record; where the folder cannot be written the file is hashed each time instead."""
        try:
            self.record_path.parent.mkdir(parents=True, exist_ok=True)
            write_record(self.record_path, record)
        except OSError:
            return

    def forget(self) -> None:
        """Remove the record: what the file is has to be found out again."""
        self.record_path.unlink(missing_ok=True)


def read_record(path: Path) -> Record | None:
    """The record in that file; None where it is not there or makes no sense."""
    try:
        data = json.loads(path.read_bytes())
        record = Record(**data)
    except (OSError, ValueError, TypeError):
        return None
    kinds = (type(record.size), type(record.mtime_ns), type(record.sha256), type(record.origin))
    return record if kinds == (int, int, str, str) else None


def write_record(path: Path, record: Record) -> None:
    """Replace the record in that file, whole or not at all."""
    draft = path.with_name(f".partial-{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(asdict(record)), "utf-8")
    os.replace(draft, path)


def digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_digest(path: Path) -> str:
    """The SHA-1 that git gives to a file, as 40 hexadecimal digits."""
    found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system offers it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
