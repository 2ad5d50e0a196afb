"""The adapters that were opened for a loaded model."""

from __future__ import annotations

from pathlib import Path

from local_llms.backends.transformers.lora import read_lora
from local_llms.backends.transformers.parts import LoadedAdapter, Parts
from local_llms.errors import AdapterError


class Adapters:
    """Opened once each, and kept."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._opened: dict[Path, LoadedAdapter] = {}

    def open(self, path: Path) -> None:
        """See ``Backend.open_adapter``. Nothing of the network is changed, so any thread may do it.

        Raises AdapterError, MissingDependency and DownloadError.
        """
        if path not in self._opened:
            self._opened[path] = self._read(path)

    def get(self, path: Path) -> LoadedAdapter:
        """One that was opened. Raises ValueError for another."""
        if path not in self._opened:
            raise ValueError(f"the adapter {path} was not opened")
        return self._opened[path]

    def _read(self, path: Path) -> LoadedAdapter:
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise AdapterError(
                f"{path} {what}, and this backend takes adapters as folders, as the PEFT library saves them."
            )
        for reader in self._parts.adapter_readers:
            found = reader(path, self._parts.network)
            if found is not None:
                return found
        return read_lora(path, self._parts.network)
