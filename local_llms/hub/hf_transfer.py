"""Brings the content of one file from the hub, and goes on where an earlier attempt stopped.

huggingface_hub gives the connection: its client, its proxies and certificates, its token. Its own download begins anew
after every failure, so the loop around the requests is ours. Nothing is believed about what arrives: whoever calls
verifies the digest.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import IO

from local_llms.errors import ChecksumMismatch, DownloadError
from local_llms.hub.hf_ask import HubFile, hub_errors, request_headers, status_error
from local_llms.hub.names import HubName
from local_llms.hub.progress import Progress

TRIES = 5
"""Requests in a row that may bring nothing."""

_PAUSE_SECONDS = 1.0
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_NO_SUCH_RANGE = 416
_TRY_AGAIN = (_NO_SUCH_RANGE, 408, 425, 429, 500, 502, 503, 504)


def transfer(name: HubName, source: HubFile, target: Path, progress: Progress) -> None:
    """Append what is missing to ``target`` until it has ``source.size`` bytes. It keeps what arrived when this raises.

    Raises OfflineError where the connection fails again and again, DownloadError for an answer that ends it,
    ChecksumMismatch where more bytes come than the file has, or OSError from the disk.
    """
    # Unbuffered: what arrived is in the file when the process is killed.
    with target.open("ab", buffering=0) as file:
        if file.tell() > source.size:
            file.truncate(0)
        # An attempt that began anew and came no further than one before it brought nothing.
        idle, furthest, refused, forward = 0, _size(file), False, _Forward(progress)
        while (before := _size(file)) < source.size:
            failure: DownloadError | None = None
            try:
                with hub_errors(name):
                    status = _request(source, file, before, forward)
            except ChecksumMismatch:
                raise
            except DownloadError as error:
                failure = error
            else:
                if status >= 400:
                    failure = status_error(name, status)
                    if status not in _TRY_AGAIN or (status == _NO_SUCH_RANGE and refused):
                        raise failure
                    refused = refused or status == _NO_SUCH_RANGE
            idle = 0 if _size(file) > furthest else idle + 1
            furthest = max(furthest, _size(file))
            if idle >= TRIES:
                raise failure or DownloadError(
                    f"The hub sends only {_size(file)} of the {source.size} bytes of {name}. Try again later: what has "
                    "arrived is kept."
                )
            if idle:
                time.sleep(_PAUSE_SECONDS * idle)


def _request(source: HubFile, file: IO[bytes], have: int, progress: _Forward) -> int:
    """One request for what is missing, and the status of its answer. Where that begins elsewhere, so does the file."""
    from huggingface_hub import constants, get_session

    headers = request_headers()
    if have:
        headers["Range"] = f"bytes={have}-"
    with get_session().stream(
        "GET", source.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
    ) as answer:
        status = int(answer.status_code)
        if status == _NO_SUCH_RANGE:
            file.truncate(0)
        if status >= 400:
            return status
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "")) if status == 206 else None
        begin = int(found[1]) if found else 0
        if begin != have:
            file.truncate(0)
            have = 0
        if begin != have:
            return status
        for block in answer.iter_bytes():
            have += len(block)
            if have > source.size:
                file.truncate(0)
                raise ChecksumMismatch(
                    f"More than the {source.size} bytes that the file has came from the hub. Nothing of it was kept; "
                    "fetch it again."
                )
            _write(file, block)
            progress.advance_to(have)
    return status


def _write(file: IO[bytes], block: bytes) -> None:
    """Write all of a block: an unbuffered file may take less at a time, as when the disk fills up."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


class _Forward:
    """Progress that never goes back, also when a file begins anew."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._most = 0

    def advance_to(self, done_bytes: int) -> None:
        self._most = max(self._most, done_bytes)
        self._progress.advance_to(self._most)


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)
