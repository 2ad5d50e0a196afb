"""Where the package keeps files. Every path is worked out at the call, so that a test or a program can move it.

``LOCAL_LLMS_HOME`` names one folder for everything; without it the platform's own cache and config folders are used
(``platformdirs``). Nothing here creates a folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

HOME_VARIABLE = "LOCAL_LLMS_HOME"


def home() -> Path | None:
    """The folder that ``LOCAL_LLMS_HOME`` names, ``~`` expanded; None where it is unset or empty."""
    value = os.environ.get(HOME_VARIABLE)
    return Path(value).expanduser().absolute() if value else None


def cache_dir() -> Path:
    """The folder of what can be fetched again: model files."""
    base = home()
    return base / "cache" if base else platformdirs.user_cache_path("local_llms", appauthor=False)


def config_dir() -> Path:
    """The folder of what the user wrote: ``families/*.toml``."""
    base = home()
    return base / "config" if base else platformdirs.user_config_path("local_llms", appauthor=False)
