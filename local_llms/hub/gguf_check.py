"""Whether a GGUF file is sound enough to hand to llama.cpp, which aborts the process on some mistakes.

Checked beyond the header's form: where the weights lie, what llama.cpp asserts about the vocabulary
(src/llama-vocab.cpp), and that all parts of a model in several files are there.
"""

from __future__ import annotations

import math
import os
import re

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import AGAIN
from local_llms.hub.gguf import GGUFArray, GGUFHeader, read_header

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MAX_BLOCKS = 512
"""LLAMA_MAX_LAYERS of src/llama-hparams.h."""
_TOKENS = "tokenizer.ggml.tokens"


def check_gguf(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read and check a model file, its other parts too. Raises ModelFileError that says what to do.

    A damaged weight is not noticed: only a digest would tell. The header of the first part comes back.
    """
    header = read_header(path)
    _check_parts(header)
    _check_kind(header)
    _check_numbers(header)
    check_tensors(header)
    _check_vocabulary(header)
    return header


def _bad(header: GGUFHeader, what: str, advice: str = AGAIN) -> ModelFileError:
    return ModelFileError(f"{header.path} is not a sound GGUF file: {what}. {advice}")


def _check_kind(header: GGUFHeader) -> None:
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelFileError(f"{header.path} holds no model but something of the type {kind!r}. Give a model file.")
    if not header.architecture:
        raise _bad(header, "general.architecture is missing", "Convert the model again, or look for another file.")
    if not header.tensors:
        raise _bad(header, "it holds no weights", "Look for the complete file of this model.")


def _check_numbers(header: GGUFHeader) -> None:
    """Numbers that make llama.cpp abort, or decode without end."""
    architecture = header.architecture
    blocks = header.metadata.get(f"{architecture}.block_count", 1)
    if type(blocks) is not int or not 0 < blocks <= MAX_BLOCKS:
        raise _bad(header, f"{architecture}.block_count is {blocks!r} instead of 1 to {MAX_BLOCKS}")
    rotated, head = header.metadata.get(f"{architecture}.rope.dimension_count", 2), _head_size(header)
    if type(rotated) is not int or rotated <= 0 or rotated % 2 or rotated > head:
        raise _bad(
            header, f"{architecture}.rope.dimension_count is {rotated!r} instead of an even number from 2 to {head}"
        )
    pooling = header.metadata.get(f"{architecture}.pooling_type", 0)
    if pooling not in range(5):
        raise _bad(header, f"{architecture}.pooling_type is {pooling!r} instead of 0 to 4")
    for key, value in header.metadata.items():
        if key.endswith("_epsilon") and not (isinstance(value, float) and 0 <= value < math.inf):
            raise _bad(header, f"{key} is {value!r}")


def _head_size(header: GGUFHeader) -> int:
    """Length of a key of attention; a bound that is never reached where the file does not tell."""
    prefix = f"{header.architecture}."
    size, heads = (header.metadata.get(prefix + key) for key in ("embedding_length", "attention.head_count"))
    sizes = [value for key, value in header.metadata.items() if key.startswith(f"{prefix}attention.key_length")]
    if type(size) is int and type(heads) is int and heads > 0:
        sizes.append(size // heads)
    return max((value for value in sizes if type(value) is int), default=1 << 16)


def check_tensors(header: GGUFHeader) -> None:
    """llama.cpp wants the tensors one after the other, each padded to the alignment. Raises ModelFileError."""
    available = header.size - header.data_offset
    expected = 0
    names: set[str] = set()
    for tensor in header.tensors:
        if tensor.name in names:
            raise _bad(header, f"the tensor {tensor.name} comes twice")
        names.add(tensor.name)
        if any(not 0 < length < 1 << 63 for length in tensor.shape):
            raise _bad(header, f"the tensor {tensor.name} has the impossible shape {tensor.shape}")
        row = tensor.shape[0] if tensor.shape else 1
        if row % tensor.type.block:
            raise _bad(
                header,
                f"the rows of {tensor.name} have {row} weights, no multiple of the {tensor.type.block} that "
                f"{tensor.type.name} stores together",
            )
        if tensor.offset != expected:
            raise _bad(header, f"the tensor {tensor.name} begins at {tensor.offset} instead of {expected}")
        if tensor.offset + tensor.size > available:
            raise _bad(
                header,
                f"the tensor {tensor.name} ends at byte {header.data_offset + tensor.offset + tensor.size}, and the "
                f"file has {header.size}",
            )
        expected += tensor.size + -tensor.size % header.alignment


def _check_vocabulary(header: GGUFHeader) -> None:
    model = header.metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str):
        raise _bad(header, "it has no vocabulary (tokenizer.ggml.model)", "Convert the model with its tokenizer.")
    if model in ("none", "no_vocab"):
        return
    tokens = header.metadata.get(_TOKENS)
    if not isinstance(tokens, GGUFArray) or tokens.type != "string" or tokens.count == 0:
        raise _bad(header, f"{_TOKENS} is not a list of strings")
    for key, types in (("scores", ("float32", "int32")), ("token_type", ("int32",))):
        value = header.metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            continue
        if not isinstance(value, GGUFArray) or value.type not in types or value.count < tokens.count:
            raise _bad(
                header, f"tokenizer.ggml.{key} is not a list of one {types[0]} for each of {tokens.count} tokens"
            )
    # llama.cpp takes them as C strings, which end at a zero byte, and gives empty ones such a name.
    texts = [text.partition(b"\0")[0] for text in header.raw_strings(_TOKENS)]
    distinct = {text or b"[EMPTY_%d]" % index for index, text in enumerate(texts)}
    if len(distinct) != len(texts):
        raise _bad(header, f"{_TOKENS} has the same token twice")
    if model == "bert":
        # Every text gets these two, by default 101 and 102.
        for key, default in (("bos_token_id", 101), ("seperator_token_id", 102)):
            number = header.metadata.get(f"tokenizer.ggml.{key}", default)
            if type(number) is not int or not 0 <= number < tokens.count:
                raise _bad(header, f"tokenizer.ggml.{key} is {number!r}, which is none of its {tokens.count} tokens")
    if model == "llama":
        lacking = [byte for byte in range(256) if b"<0x%02X>" % byte not in distinct and bytes([byte]) not in distinct]
        if lacking:
            raise _bad(
                header,
                f"its vocabulary has no token for the byte 0x{lacking[0]:02X} ({len(lacking)} bytes lack one)",
                "Convert the model again with its byte tokens, or look for another file.",
            )


def _split_number(header: GGUFHeader) -> int:
    number = header.metadata.get("split.no", 0)
    return number if type(number) is int else 0


def parts_of(header: GGUFHeader) -> list[GGUFHeader]:
    """The headers of all files of a checked model, of which ``header`` is the first. Raises ModelFileError."""
    count = header.metadata.get("split.count", 0)
    match = _PART.fullmatch(header.path.name)
    if type(count) is not int or count <= 1 or match is None:
        return [header]
    names = [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(2, count + 1)]
    return [header, *(read_header(header.path.with_name(name)) for name in names)]


def _check_parts(header: GGUFHeader) -> None:
    """A model in several files is loaded by its first one; llama.cpp finds the others by their names."""
    count = header.metadata.get("split.count", 0)
    if type(count) is not int or count <= 1:
        return
    match = _PART.fullmatch(header.path.name)
    if match is None or int(match["count"]) != count:
        raise ModelFileError(
            f"{header.path} is one of {count} parts of a model, and its name does not say which. Give the parts the "
            f"names NAME-00001-of-{count:05}.gguf and so on."
        )
    names = [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    if int(match["number"]) != 1 or _split_number(header) != 0:
        raise ModelFileError(f"{header.path} is one of {count} parts of a model. Give the first part, {names[0]}.")
    missing = [name for name in names if not header.path.with_name(name).is_file()]
    if missing:
        raise ModelFileError(
            f"{header.path} is one of {count} parts of a model, and {len(missing)} are missing from its folder, "
            f"{missing[0]} first. Fetch them too."
        )
    for number, name in enumerate(names[1:], start=1):
        part = read_header(header.path.with_name(name))
        if _split_number(part) != number:
            raise ModelFileError(
                f"{part.path} is part {_split_number(part) + 1} by its content. Fetch the parts again."
            )
        check_tensors(part)
