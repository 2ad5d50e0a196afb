"""What an adapter's files say of it, found without loading it or its base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from local_llms.errors import AdapterError, ModelFileError
from local_llms.hub.file_facts import main_type
from local_llms.hub.folder_facts import WEIGHTS as MODEL_WEIGHTS
from local_llms.hub.folder_facts import outline_of_folder, read_config
from local_llms.hub.gguf import GGUFHeader, read_header
from local_llms.hub.outline import outline_of
from local_llms.hub.peft import PICKLE, WEIGHTS, is_peft, read_peft_config
from local_llms.hub.pickle_outline import Outline

PREFIX = "prefix_encoder."
"""In the names of the weights of a P-tuning prefix."""

_FILES = (WEIGHTS, PICKLE, *(f"{stem}{suffix}" for stem, suffix in MODEL_WEIGHTS))
"""One of these in a folder means the folder."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """``change``: what it does to a model, in words. ``base``: what it was trained on, "" where it does not tell.

    ``architecture``: None where it does not tell. ``parameters``: its own weights.
    """

    change: str
    base: str
    architecture: str | None
    parameters: int
    quantization: str | None


def adapter_facts_of(path: Path) -> AdapterFacts | None:
    """The facts of an adapter; None for whatever is none. Raises AdapterError for a damaged or unusable one."""
    try:
        if path.is_dir():
            return _of_peft(path) if is_peft(path) else _of_prefix(path)
        if path.name in _FILES and (of_folder := adapter_facts_of(path.parent)) is not None:
            return of_folder
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                return None
        header = read_header(path)
        return _of_gguf(header) if header.metadata.get("general.type") == "adapter" else None
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}.") from error
    except ModelFileError as error:
        raise AdapterError(str(error)) from error


def _of_peft(path: Path) -> AdapterFacts:
    config = read_peft_config(path)
    file = next((path / name for name in (WEIGHTS, PICKLE) if (path / name).is_file()), None)
    outline = outline_of(file) if file is not None else {}
    # PEFT stores the first of the two matrices as (rank, inputs).
    ranks = {name.split(".lora_")[0]: tensor.shape[0] for name, tensor in outline.items() if _is_first(name, tensor)}
    whole = [name.removesuffix(".weight").rpartition(".")[2] for name in outline if ".lora_" not in name]
    base = config.get("base_model_name_or_path")
    return AdapterFacts(
        change=_lora(ranks, whole),
        base=base if isinstance(base, str) else "",
        architecture=None,
        parameters=_count(outline),
        quantization=_type(outline),
    )


def _is_first(name: str, tensor: Outline) -> bool:
    return (".lora_A." in name or name.endswith(".lora_embedding_A")) and len(tensor.shape) == 2


def _of_gguf(header: GGUFHeader) -> AdapterFacts:
    base = header.metadata.get("general.base_model.0.name", "")
    # ggml's order is the other way round: (inputs, rank).
    ranks = {
        tensor.name.split(".weight.lora_")[0]: tensor.shape[1]
        for tensor in header.tensors
        if tensor.name.endswith(".lora_a") and len(tensor.shape) > 1
    }
    return AdapterFacts(
        change=_lora(ranks, ()),
        base=base if isinstance(base, str) else "",
        architecture=header.architecture,
        parameters=header.parameters,
        quantization=main_type((tensor.type.name, prod(tensor.shape)) for tensor in header.tensors),
    )


def _of_prefix(path: Path) -> AdapterFacts | None:
    """A checkpoint of a P-tuning prefix alone; one with the weights of the model beside it is a model."""
    outline = outline_of_folder(path)
    if not outline or any(PREFIX not in name for name in outline):
        return None
    rows = next((tensor.shape[0] for name, tensor in outline.items() if name.endswith("embedding.weight")), 0)
    projected = any(".trans." in name for name in outline)
    config = read_config(path / "config.json")
    base = config.get("_name_or_path")
    return AdapterFacts(
        change=f"a P-tuning prefix of {rows} tokens{', with projection' if projected else ''}",
        base=base if isinstance(base, str) else "",
        architecture="chatglm",
        parameters=_count(outline),
        quantization=_type(outline),
    )


def _lora(ranks: Mapping[str, int], whole: Iterable[str]) -> str:
    """In words: of which rank, for which kinds of modules."""
    sizes = sorted(set(ranks.values()))
    span = "" if not sizes else f" of rank {sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "")
    modules = sorted({name.rpartition(".")[2] for name in ranks})
    text = f"a LoRA{span} for {', '.join(modules)}" if modules else "a LoRA"
    replaced = sorted(set(whole))
    return f"{text}, which replaces {', '.join(replaced)}" if replaced else text


def _count(outline: Mapping[str, Outline]) -> int:
    return sum(prod(tensor.shape) for tensor in outline.values())


def _type(outline: Mapping[str, Outline]) -> str | None:
    return main_type((tensor.type, prod(tensor.shape)) for tensor in outline.values())
