"""Whether a LoRA in a GGUF file is sound and fits a model, before llama.cpp sees it.

Format: llama.cpp's src/llama-adapter.cpp reads and convert_lora_to_gguf.py writes it. For each changed tensor of the
model there are two, ``NAME.lora_a`` of shape (input, rank) and ``NAME.lora_b`` of shape (rank, output), in ggml's
order; ``adapter.lora.alpha`` divided by the rank is the strength at scale 1.
"""

from __future__ import annotations

from pathlib import Path

from local_llms.backends.llama_cpp.lora_convert import converted
from local_llms.errors import AdapterError, ModelFileError
from local_llms.hub.gguf import GGUFHeader, TensorInfo, read_header
from local_llms.hub.gguf_check import check_tensors, parts_of

_OTHER_MODEL = "It was made for another model: give the model that it was trained on, or an adapter of this one."
_A, _B = ".lora_a", ".lora_b"


def check_lora(path: Path, base: GGUFHeader) -> Path:
    """The GGUF file of an adapter that fits the model ``base``; a PEFT folder is converted.

    Raises AdapterError that says what to do, and what ``lora_convert.converted`` raises.
    """
    weights = {tensor.name: tensor for part in parts_of(base) for tensor in part.tensors}
    file = converted(path, base, weights) if path.is_dir() else path
    header = read_lora(file)
    if header.architecture != base.architecture:
        raise AdapterError(
            f"{path} is an adapter for the architecture {header.architecture!r}, and {base.path} has "
            f"{base.architecture!r}. {_OTHER_MODEL}"
        )
    for name, (a, b) in _pairs(header).items():
        _check_fit(header, base, name, weights.get(name), a, b)
    return file


def read_lora(path: Path) -> GGUFHeader:
    """The header of a sound LoRA file. Raises AdapterError."""
    try:
        header = read_header(path)
        check_tensors(header)
    except ModelFileError as error:
        raise AdapterError(str(error)) from error
    kind = header.metadata.get("general.type", "model")
    if kind != "adapter":
        raise AdapterError(f"{path} holds no adapter but something of the type {kind!r}. Give it as the model instead.")
    sort = header.metadata.get("adapter.type")
    if sort != "lora":
        raise AdapterError(f"{path} is an adapter of the type {sort!r}, and only 'lora' can be used.")
    alpha = header.metadata.get("adapter.lora.alpha", 0.0)
    if header.types.get("adapter.lora.alpha", "float32") != "float32" or not 0 <= alpha < float("inf"):
        raise AdapterError(f"{path} is damaged: its adapter.lora.alpha is {alpha!r}. Convert or fetch it again.")
    if "adapter.alora.invocation_tokens" in header.metadata:
        raise AdapterError(
            f"{path} is an activated LoRA, which takes effect from certain tokens on only. It cannot be used: give an "
            "ordinary LoRA."
        )
    return header


def _pairs(header: GGUFHeader) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    """Name of the changed tensor → its two matrices. Raises AdapterError where one is alone, or is something else."""
    halves: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        name, dot, ending = tensor.name.rpartition(".")
        if dot + ending not in (_A, _B):
            raise AdapterError(
                f"{header.path} changes {tensor.name} as a whole, which llama.cpp leaves out without a word. Merge the "
                "adapter into its model and convert the result, or use it with the transformers backend."
            )
        halves.setdefault(name, {})[dot + ending] = tensor
    lonely = [name for name, both in halves.items() if len(both) != 2]
    if lonely or not halves:
        what = f"{lonely[0]} has only one of its two matrices" if lonely else "it changes nothing"
        raise AdapterError(f"{header.path} is damaged: {what}. Convert or fetch it again.")
    return {name: (both[_A], both[_B]) for name, both in halves.items()}


def _check_fit(
    header: GGUFHeader, base: GGUFHeader, name: str, weight: TensorInfo | None, a: TensorInfo, b: TensorInfo
) -> None:
    if weight is None:
        raise AdapterError(f"{header.path} changes {name}, which {base.path} does not have. {_OTHER_MODEL}")
    inner, outer = weight.shape[0], weight.shape[1] if len(weight.shape) > 1 else 0
    if name == "token_embd.weight":
        # A row of the embedding is looked up, not multiplied: there the first matrix is stored transposed.
        found, ranks = (b.shape[1], a.shape[1]), (a.shape[0], b.shape[0])
        fits = found == (inner, outer) and ranks[0] == ranks[1]
    else:
        fits = (a.shape[0], b.shape[1]) == (inner, outer) and a.shape[1] == b.shape[0]
    if not fits or a.shape[2:] != weight.shape[2:] or b.shape[2:] != weight.shape[2:]:
        raise AdapterError(
            f"{header.path} changes {name} with matrices of the shapes {a.shape} and {b.shape}, and in {base.path} it "
            f"has {weight.shape}. {_OTHER_MODEL}"
        )
