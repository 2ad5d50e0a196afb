"""One module or package per library; a model file is served by the first that claims it.

They are found by looking into this folder, so a new backend is a new module here and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import cast

from local_llms.backends.base import BackendModule
from local_llms.errors import ModelFileError, OptionError, suggestion
from local_llms.hub.foreign import PROBE_BYTES, describe

_NOT_BACKENDS = {"base"}
_registered: dict[str, BackendModule] = {}


def register(backend: BackendModule) -> None:
    """Add a backend from outside this folder, such as one for tests. It is asked before those of the package."""
    _registered[backend.NAME] = backend


def available() -> dict[str, BackendModule]:
    """Every backend by name: registered ones, then this package's in the order of names. Imports no library."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name not in _NOT_BACKENDS)
    modules = (cast(BackendModule, importlib.import_module(f"{__name__}.{name}")) for name in names)
    return {**_registered, **{module.NAME: module for module in modules}}


def choose(path: Path, backend: str | None) -> tuple[BackendModule, str]:
    """The backend for a model file or folder, and why it is that one.

    ``backend`` names one; None takes the first that claims the file. Raises OptionError for a name that does not exist,
    ModelFileError where no backend knows the file.
    """
    modules = available()
    if backend is not None:
        if backend not in modules:
            raise OptionError(f"There is no backend {backend!r}.{suggestion(backend, modules)}")
        return modules[backend], f"backend={backend!r} was given"
    for module in modules.values():
        reason = module.claims(path)
        if reason is not None:
            return module, reason
    raise ModelFileError(_nobody(path, modules))


def _nobody(path: Path, modules: dict[str, BackendModule]) -> str:
    known = "; ".join(f"{module.READS} ({name})" for name, module in modules.items())
    if not path.exists():
        return f"There is no file {path}. Check the path."
    if path.is_dir():
        files = sorted(entry for entry in path.glob("*.gguf") if entry.is_file())
        hint = f" Give the file in it: {files[0]}." if files else ""
        if (path / "adapter_config.json").is_file():
            hint = " It holds an adapter: name the model that it was trained over, and give the folder as adapter=."
        elif not hint:
            hint = _lacking(path)
        return f"{path} is a folder that no backend reads. Known are: {known}.{hint}"
    return f"{path} is no model file that a backend reads. Known are: {known}.{_hint(path)}"


def _lacking(path: Path) -> str:
    """What keeps a folder from being a checkpoint."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError as error:
        return f" It cannot be read: {error.strerror}."
    if not names:
        return " It is empty."
    if "config.json" in names:
        return " It has a config.json and no weights."
    weights = any(Path(name).suffix in (".safetensors", ".bin", ".pth", ".pt") for name in names)
    return " It has weights and no config.json." if weights else " It has neither a config.json nor weights."


def _hint(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(PROBE_BYTES)
    except OSError as error:
        return f" It cannot be read: {error.strerror}."
    if not start:
        return " It is empty: fetch it again."
    found = describe(start)
    return f" {found}" if found else ""
