"""The most memory that this process and its children have had."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_PROC = Path("/proc")


def peak_memory() -> int:
    """Bytes of resident memory, weights mapped from their file among them; 0 where the system does not tell."""
    if (_PROC / "self" / "status").exists():
        return sum(_peak(pid) for pid in _family(os.getpid()))
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents = {int(entry.name): _number(entry / "status", "PPid") for entry in _PROC.iterdir() if entry.name.isdigit()}
    found = [pid]
    for member in found:
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def _peak(pid: int) -> int:
    return 1024 * _number(_PROC / str(pid) / "status", "VmHWM")


def _number(status: Path, key: str) -> int:
    try:
        lines = status.read_text().splitlines()
    except OSError:
        # It ended meanwhile.
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
