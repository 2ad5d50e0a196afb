"""Whether a GGML file is sound enough for the libraries of 2023, which end the process on some mistakes.

Checked beyond the header's form: the hyperparameters, and that exactly the tensors are there that the kind of model
has, in the shapes that follow from the hyperparameters. So their bytes are what the header promises and end where the
file ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import AGAIN
from local_llms.hub.ggml import GGMLHeader, read_ggml

MAX_LAYERS = 512
MAX_WIDTH = 1 << 17
MAX_CONTEXT = 1 << 16

VECTOR_TYPE = "F32"
MATRIX_TYPES = frozenset({"F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"})
FILE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1"}
"""What a file type of GPT-NeoX and GPT-J says of all their matrices (enum ggml_ftype)."""
LLAMA_FILE_TYPES = range(19)

Shapes = Mapping[str, tuple[int, ...]]


def check_ggml(path: str | os.PathLike[str]) -> GGMLHeader:
    """Read and check a model file. Raises ModelFileError that says what to do.

    A damaged weight is not noticed: only a digest would tell.
    """
    header = read_ggml(path)
    _check_numbers(header)
    _check_tensors(header)
    _check_types(header)
    return header


def grouped(header: GGMLHeader) -> int:
    """How many heads share a key and a value: 8 in LLaMA 2 70B, 1 in all others."""
    return 8 if header.kind == "llama" and header.numbers["layers"] == 80 and _narrow_keys(header) else 1


def _bad(header: GGMLHeader, what: str) -> ModelFileError:
    return ModelFileError(f"{header.path} is not a sound GGML file: {what}. {AGAIN}")


def _check_numbers(header: GGMLHeader) -> None:
    numbers = header.numbers
    limits = {
        "width": MAX_WIDTH,
        "heads": MAX_WIDTH,
        "layers": MAX_LAYERS,
        "context": MAX_CONTEXT,
        "multiple": MAX_WIDTH,
    }
    for name, limit in limits.items():
        if name in numbers and not 0 < numbers[name] <= limit:
            raise _bad(header, f"the hyperparameter {name} is {numbers[name]} instead of 1 to {limit}")
    width, heads, rotated = numbers["width"], numbers["heads"], numbers["rotated"]
    if width % heads:
        raise _bad(header, f"{heads} heads cannot share a width of {width}")
    head = width // heads
    whole = header.kind == "llama"
    if rotated % 2 or not 0 < rotated <= head or (whole and rotated != head):
        raise _bad(header, f"{rotated} of the {head} numbers of a head are rotated")
    known = LLAMA_FILE_TYPES if whole else FILE_TYPES
    if numbers["file_type"] not in known:
        raise _bad(header, f"it has the unknown file type {numbers['file_type']}")
    if numbers.get("parallel", 0) not in (0, 1):
        raise _bad(header, f"the hyperparameter parallel is {numbers['parallel']} instead of 0 or 1")


def _check_tensors(header: GGMLHeader) -> None:
    wanted = SHAPES[header.kind](header)
    for tensor in header.tensors:
        shape = wanted.get(tensor.name)
        if shape is None:
            raise ModelFileError(
                f"{header.path} has a tensor {tensor.name!r}, which no {header.kind} model has. Known are llama, "
                "gptneox (with dolly-v2) and gptj models. Look for this model as GGUF."
            )
        if tensor.shape != shape:
            raise _bad(header, f"the tensor {tensor.name} has the shape {tensor.shape} instead of {shape}")
    missing = wanted.keys() - {tensor.name for tensor in header.tensors}
    if missing:
        raise _bad(header, f"{len(missing)} tensors are missing, {min(missing)} first")


def _check_types(header: GGMLHeader) -> None:
    promised = None if header.kind == "llama" else FILE_TYPES[header.numbers["file_type"]]
    for tensor in header.tensors:
        allowed = {VECTOR_TYPE} if len(tensor.shape) == 1 else {promised} if promised else MATRIX_TYPES
        if tensor.type.name not in allowed:
            expected = " or ".join(sorted(filter(None, allowed)))
            raise _bad(header, f"the tensor {tensor.name} is stored as {tensor.type.name} instead of {expected}")


def _narrow_keys(header: GGMLHeader) -> bool:
    width = header.numbers["width"]
    return any(
        tensor.name == "layers.0.attention.wk.weight" and tensor.shape == (width, width // 8)
        for tensor in header.tensors
    )


def _llama(header: GGMLHeader) -> Shapes:
    """Names and shapes as in Meta's checkpoints; the feed-forward width is computed as their code does."""
    numbers = header.numbers
    width, vocabulary, multiple = numbers["width"], numbers["vocabulary"], numbers["multiple"]
    groups = grouped(header)
    inner = 2 * (4 * width) // 3
    if groups == 8:
        inner = int(1.3 * inner)
    inner = -(-inner // multiple) * multiple
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (width, vocabulary),
        "norm.weight": (width,),
        "output.weight": (width, vocabulary),
    }
    for layer in range(numbers["layers"]):
        block = f"layers.{layer}."
        shapes |= {
            f"{block}attention_norm.weight": (width,),
            f"{block}attention.wq.weight": (width, width),
            f"{block}attention.wk.weight": (width, width // groups),
            f"{block}attention.wv.weight": (width, width // groups),
            f"{block}attention.wo.weight": (width, width),
            f"{block}ffn_norm.weight": (width,),
            f"{block}feed_forward.w1.weight": (width, inner),
            f"{block}feed_forward.w2.weight": (inner, width),
            f"{block}feed_forward.w3.weight": (width, inner),
        }
    return shapes


def _gptneox(header: GGMLHeader) -> Shapes:
    width, vocabulary = header.numbers["width"], header.numbers["vocabulary"]
    shapes: dict[str, tuple[int, ...]] = {
        "gpt_neox.embed_in.weight": (width, vocabulary),
        "gpt_neox.final_layer_norm.weight": (width,),
        "gpt_neox.final_layer_norm.bias": (width,),
        "embed_out.weight": (width, vocabulary),
    }
    for layer in range(header.numbers["layers"]):
        block = f"gpt_neox.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{block}{norm}.weight": (width,), f"{block}{norm}.bias": (width,)}
        for name, columns, rows in (
            ("attention.query_key_value", width, 3 * width),
            ("attention.dense", width, width),
            ("mlp.dense_h_to_4h", width, 4 * width),
            ("mlp.dense_4h_to_h", 4 * width, width),
        ):
            shapes |= {f"{block}{name}.weight": (columns, rows), f"{block}{name}.bias": (rows,)}
    return shapes


def _gptj(header: GGMLHeader) -> Shapes:
    width, vocabulary = header.numbers["width"], header.numbers["vocabulary"]
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (width, vocabulary),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (width, vocabulary),
        "lm_head.bias": (vocabulary,),
    }
    for layer in range(header.numbers["layers"]):
        block = f"transformer.h.{layer}."
        shapes |= {f"{block}ln_1.weight": (width,), f"{block}ln_1.bias": (width,)}
        shapes |= {f"{block}attn.{name}_proj.weight": (width, width) for name in ("q", "k", "v", "out")}
        shapes |= {f"{block}mlp.fc_in.weight": (width, 4 * width), f"{block}mlp.fc_in.bias": (4 * width,)}
        shapes |= {f"{block}mlp.fc_out.weight": (4 * width, width), f"{block}mlp.fc_out.bias": (width,)}
    return shapes


SHAPES = {"llama": _llama, "gptneox": _gptneox, "gptj": _gptj}
