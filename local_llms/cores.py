"""How many cores this process may use: more computing threads than that would wait for each other at every step."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores that the system gives this process, and no more than a container's limit allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _quota(_LIMIT) or cores)


def _quota(file: Path) -> int | None:
    """Whole cores that a container's limit allows (cgroup v2: microseconds per period); None where there is none."""
    try:
        allowed, period = file.read_text().split()
        return max(1, round(int(allowed) / int(period)))
    except (OSError, ValueError):
        return None
