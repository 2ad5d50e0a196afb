"""A position in a model file that never goes past the end which was measured first: nothing in a file is believed."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, ClassVar

from local_llms.errors import ModelFileError

AGAIN = "It is truncated or damaged: fetch it again."
"""What to do about most faults of a file."""


class BoundedReader:
    """Reads a file of a known size in bytes; whatever is wrong is a ModelFileError."""

    format: ClassVar[str]
    """The name of the file's format, for errors."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size, self.at = file, path, size, 0

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.at

    def fail(self, what: str, advice: str = AGAIN) -> ModelFileError:
        """An error that says what is wrong, and what to do."""
        return ModelFileError(f"{self.path} is not a sound {self.format} file: {what}. {advice}")

    def seek(self, position: int) -> None:
        """Go on from there."""
        self.file.seek(position)
        self.at = position

    def skip(self, count: int, what: str) -> None:
        """Go past ``count`` bytes. Raises ModelFileError where so many are not left; ``what`` names them."""
        self._check(count, what)
        self.seek(self.at + count)

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes. Raises as ``skip`` does."""
        self._check(count, what)
        data = self.file.read(count)
        if len(data) != count:
            raise self.fail(f"it became shorter while {what} was read")
        self.at += count
        return data

    def _check(self, count: int, what: str) -> None:
        if count > self.left:
            raise self.fail(f"{what} needs {count} bytes, and {self.left} are left")
