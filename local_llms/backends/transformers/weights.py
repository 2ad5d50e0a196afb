"""The weight files of a checkpoint's folder: found, checked by their headers, and mapped instead of read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from local_llms.backends.transformers.files import read_json
from local_llms.errors import ModelFileError
from local_llms.hub.folder_facts import WEIGHTS
from local_llms.hub.pickles import as_safetensors
from local_llms.hub.safetensors_file import read_safetensors

if TYPE_CHECKING:
    import torch

EXTRA = "transformers"
"""The extra of this package that brings what this backend needs."""

_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights:
    """The tensors of a checkpoint, by name. Their bytes are mapped into memory when they are asked for."""

    def __init__(self, files: Iterable[Path]) -> None:
        """Checks every file's header. Raises ModelFileError."""
        self.files = [read_safetensors(file) for file in files]
        self.names = {name: tensor for file in self.files for name, tensor in file.tensors.items()}
        if not self.names:
            raise ModelFileError("The checkpoint has no weights. Fetch it again.")

    @property
    def elements(self) -> int:
        """Numbers in all tensors together."""
        return sum(tensor.elements for tensor in self.names.values())

    @property
    def dtype(self) -> str | None:
        """The number type that most weights have, by torch's name; None where it is none that a model computes in."""
        counts: Counter[str] = Counter()
        for tensor in self.names.values():
            counts[tensor.type] += tensor.elements
        return _TYPES.get(counts.most_common(1)[0][0])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Name → tensor, all mapped. Raises ModelFileError."""
        return dict(self._open())

    def _open(self) -> Iterator[tuple[str, torch.Tensor]]:
        from safetensors import SafetensorError, safe_open

        for checked in self.files:
            try:
                with safe_open(checked.path, "pt") as file:
                    for name in checked.tensors:
                        yield name, file.get_tensor(name)
            except (SafetensorError, OSError, RuntimeError) as error:
                raise ModelFileError(f"{checked.path} is damaged: {error}. Fetch it again.") from error


def has_weights(folder: Path) -> bool:
    """Whether a folder has weight files of the names that the library gives them."""
    return any((folder / f"{stem}{suffix}{tail}").is_file() for stem, suffix in WEIGHTS for tail in ("", ".index.json"))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; PyTorch files are converted in the cache.

    Raises ModelFileError where there are none or a part is missing, MissingDependency, and DownloadError where the
    cache has no room.
    """
    for stem, suffix in WEIGHTS:
        index, single = folder / f"{stem}{suffix}.index.json", folder / f"{stem}{suffix}"
        names = _parts(index, suffix) if index.is_file() else [single.name] if single.is_file() else []
        files = [folder / name for name in names]
        for file in files:
            if not file.is_file():
                raise ModelFileError(f"{file} is missing: the model's folder is incomplete. Fetch it again.")
        if files:
            return [as_safetensors(file, extra=EXTRA) if suffix == ".bin" else file for file in files]
    raise ModelFileError(f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, nor their parts.")


def _parts(index: Path, suffix: str) -> list[str]:
    """The files that an index names. They lie beside it, whatever it says."""
    table = read_json(index).get("weight_map")
    names = (
        set(table.values()) if isinstance(table, dict) and all(isinstance(v, str) for v in table.values()) else set()
    )
    if not names or any(Path(name).name != name or not name.endswith(suffix) for name in names):
        raise ModelFileError(f"{index} is damaged: its weight_map does not name {suffix} files beside it.")
    return sorted(names)
