"""Where the native library of ctransformers is, without importing that package.

Its own way to find the library imports two more packages and starts a program to learn what the processor can do.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from importlib import metadata
from pathlib import Path

from local_llms.errors import MissingDependency, ModelLoadError

VERSION = "0.2.27"
"""The functions of the library, which changed from version to version, are used as this one has them."""

_CPU_FACTS = Path("/proc/cpuinfo")
_FILES = {"linux": "libctransformers.so", "darwin": "libctransformers.dylib", "win32": "ctransformers.dll"}
_FROM_SOURCE = "pip install --force-reinstall --no-binary ctransformers ctransformers==" + VERSION


def find_library() -> Path:
    """The library that suits this processor.

    Raises MissingDependency where ctransformers is not installed, ModelLoadError for another version of it and for a
    machine that it has no library for.
    """
    spec = importlib.util.find_spec("ctransformers")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("ctransformers", extra="ctransformers", purpose="Running a GGML file of 2023")
    version = metadata.version("ctransformers")
    if version != VERSION:
        raise ModelLoadError(
            f"ctransformers {version} is installed, and version {VERSION} is needed: "
            'pip install "local-llms[ctransformers]"'
        )
    folders = Path(next(iter(spec.submodule_search_locations))) / "lib"
    name = _FILES.get(sys.platform, "")
    for kind in _kinds():
        if name and (folders / kind / name).is_file():
            return folders / kind / name
    raise ModelLoadError(
        f"ctransformers brings no library for this machine ({platform.system()}, {platform.machine()}). Build it with "
        f"{_FROM_SOURCE}, or convert the model to GGUF, which llama.cpp runs everywhere."
    )


def _kinds() -> list[str]:
    """Folders to look into, the best first; one that was built on this machine comes before all."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ["local", "basic"] if sys.platform == "darwin" else ["local"]
    flags = _cpu_flags()
    if flags is None or {"avx2", "fma", "f16c"} <= flags:
        return ["local", "avx2"]
    return ["local", "avx", "basic"] if {"avx", "f16c"} <= flags else ["local", "basic"]


def _cpu_flags() -> set[str] | None:
    """What the processor can do, as Linux tells; None elsewhere."""
    try:
        lines = _CPU_FACTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), None)
