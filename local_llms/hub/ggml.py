"""Reads the header of a GGML model file of 2023: hyperparameters, vocabulary and the list of tensors, not the weights.

Such a file does not say what kind of model it holds. Those of llama.cpp have a magic number of their own from ``ggmf``
on; the first ones share ``ggml`` with GPT-NeoX and GPT-J files, and are told apart by what their numbers mean and by
the names of their tensors. Nothing in a file is believed: every count and length is compared with what the file can
hold before memory is taken, and whatever is wrong is a ModelFileError.

Formats: llama.cpp (llama_file_loader in llama.cpp of August 2023) and ggml (examples/gpt-neox and examples/gpt-j,
main.cpp and convert-h5-to-ggml.py, of the same time).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from local_llms.errors import ModelFileError
from local_llms.hub.bounded import BoundedReader
from local_llms.hub.foreign import PROBE_BYTES, describe
from local_llms.hub.gguf_types import TENSOR_TYPES, TensorType

Kind = Literal["llama", "gptneox", "gptj"]

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt"}
"""The first four bytes → the name that the magic number spells as a little-endian integer."""
VERSIONS = {"ggmf": (1,), "ggjt": (1, 2, 3)}
RWKV_VERSIONS = (100, 101)
"""What rwkv.cpp writes after the magic ``ggmf``."""

MAX_VOCABULARY = 1_000_000
MAX_TOKEN = 4096
"""Bytes of one token, as llama.cpp's converter of these files has it."""
MAX_TENSORS = 10_000
MAX_NAME = 63
"""Bytes in a tensor's name: ggml keeps 64 with the closing zero."""
QUANTIZATION_VERSION = 2
"""Of the ways to store quantized weights: today's, with half-precision scales (llama.cpp #1508)."""
OLD_TYPES = {
    2: TensorType("Q4_0", 32, 20),
    3: TensorType("Q4_1", 32, 24),
    8: TensorType("Q8_0", 32, 36),
}
"""How version 0 and 1 of the quantizations stored these types: with single-precision scales."""
QUANTIZATION_FACTOR = 1000
"""A ``ggml`` file of GPT-NeoX or GPT-J has the version of the quantizations times this added to its file type."""

_BLOCK = 1 << 20


class Layout(NamedTuple):
    """How the beginning of a file is laid out: its numbers in their order, and the vocabulary behind them."""

    numbers: tuple[str, ...]
    repeats_count: bool
    """Whether the number of tokens stands before the vocabulary a second time."""
    first: tuple[str, ...]
    """How the names of this kind's tensors begin."""


LAYOUTS: dict[Kind, Layout] = {
    "llama": Layout(
        ("vocabulary", "width", "multiple", "heads", "layers", "rotated", "file_type"),
        False,
        ("tok_embeddings.", "norm.", "output.", "layers."),
    ),
    "gptneox": Layout(
        ("vocabulary", "context", "width", "heads", "layers", "rotated", "parallel", "file_type"),
        False,
        ("gpt_neox.", "embed_out."),
    ),
    "gptj": Layout(
        ("vocabulary", "context", "width", "heads", "layers", "rotated", "file_type"),
        True,
        ("transformer.", "lm_head."),
    ),
}


@dataclass(frozen=True, slots=True)
class GGMLTensor:
    """One tensor. ``shape`` is in ggml's order: the first number runs fastest. ``offset`` counts from the file's start.

    ``size`` are the bytes of the weights.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class GGMLHeader:
    """What a GGML file says about itself.

    ``container`` is "ggml", "ggmf" or "ggjt", ``version`` its version (0 for "ggml"). ``numbers`` are the
    hyperparameters by the names in ``LAYOUTS``; ``quantization_version`` is 0, 1 or 2, today's. ``vocabulary`` holds
    each token's bytes, ``scores`` its score, empty where the file has none. ``size`` are the bytes of the file.
    """

    path: Path
    kind: Kind
    container: str
    version: int
    numbers: Mapping[str, int]
    quantization_version: int
    vocabulary: tuple[bytes, ...]
    scores: tuple[float, ...]
    tensors: tuple[GGMLTensor, ...]
    size: int

    @property
    def parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(_elements(tensor.shape) for tensor in self.tensors)

    @property
    def label(self) -> str:
        """How people call this format: "ggjt v3", "ggml"."""
        return f"{self.container} v{self.version}" if self.version else self.container


def probe(start: bytes) -> str | None:
    """Whether a file with that beginning (8 bytes) is a GGML language model; None, or the format, such as "ggjt v3".

    A file of rwkv.cpp begins with ``ggmf`` too and is none.
    """
    container = MAGICS.get(start[:4])
    if container is None or container == "ggml":
        return container
    version = int.from_bytes(start[4:8], "little")
    return None if container == "ggmf" and version in RWKV_VERSIONS else f"{container} v{version}"


def read_ggml(path: str | os.PathLike[str]) -> GGMLHeader:
    """Read the header of a GGML file. Raises ModelFileError that says what is wrong with the file, and what to do."""
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ModelFileError(f"{path} is no ordinary file. Give a GGML model file.")
        if found.st_size == 0:
            raise ModelFileError(f"{path} is empty. Fetch it again.")
        with path.open("rb", buffering=_BLOCK) as file:
            return _parse(_Reader(file, path, found.st_size))
    except FileNotFoundError:
        raise ModelFileError(f"There is no file {path}. Check the path.") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


class _Reader(BoundedReader):
    """A position in a GGML file."""

    format = "GGML"

    def integers(self, count: int, what: str) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self.take(4 * count, what))


def _parse(reader: _Reader) -> GGMLHeader:
    container, version = _read_preamble(reader)
    kind = _find_kind(reader) if container == "ggml" else "llama"
    numbers, quantization_version = _read_numbers(reader, kind)
    if kind == "llama":
        # Each version of ggjt brought new ways to store quantized weights; what came before had those of the first.
        quantization_version = max(version - 1, 0) if container == "ggjt" else 0
    vocabulary, scores = _read_vocabulary(reader, numbers["vocabulary"], scored=container != "ggml")
    tensors: list[GGMLTensor] = []
    names: set[str] = set()
    aligned = container == "ggjt"
    while reader.left:
        tensor = _read_tensor(reader, aligned, quantization_version)
        if tensor.name in names:
            raise reader.fail(f"the tensor {tensor.name} comes twice")
        if len(tensors) == MAX_TENSORS:
            raise reader.fail(f"it has more than {MAX_TENSORS} tensors")
        names.add(tensor.name)
        tensors.append(tensor)
    return GGMLHeader(
        path=reader.path,
        kind=kind,
        container=container,
        version=version,
        numbers=numbers,
        quantization_version=quantization_version,
        vocabulary=vocabulary,
        scores=scores,
        tensors=tuple(tensors),
        size=reader.size,
    )


def _read_preamble(reader: _Reader) -> tuple[str, int]:
    start = reader.take(min(reader.size, PROBE_BYTES), "the beginning")
    container = MAGICS.get(start[:4])
    if container is None:
        hint = describe(start) or "Give a model file in one of the formats ggml, ggmf and ggjt."
        raise ModelFileError(f"{reader.path} is not a GGML file. {hint}")
    reader.seek(4)
    if container == "ggml":
        return container, 0
    version = reader.integers(1, "the version")[0]
    if container == "ggmf" and version in RWKV_VERSIONS:
        raise ModelFileError(
            f'{reader.path} is a file of rwkv.cpp. Load it with backend="rwkv", or let the file decide.'
        )
    if version not in VERSIONS[container]:
        raise reader.fail(f"it has version {version} of the format {container}, which nobody knows")
    return container, version


def _find_kind(reader: _Reader) -> Kind:
    """The kind of a ``ggml`` file, by the name of its first tensor. The reader is put back to where it was.

    Raises ModelFileError where it is none of those that are known.
    """
    begin = reader.at
    for kind, layout in LAYOUTS.items():
        reader.seek(begin)
        try:
            named, version = _read_numbers(reader, kind)
            _read_vocabulary(reader, named["vocabulary"], scored=False)
            name = _read_tensor(reader, False, version).name
        except ModelFileError:
            continue
        finally:
            reader.seek(begin)
        if name.startswith(layout.first):
            return kind
    raise reader.fail(
        "it holds no model of the kinds llama, gptneox (Dolly 2 too) and gptj",
        "It is damaged, or of another kind: look for this model as GGUF.",
    )


def _read_numbers(reader: _Reader, kind: Kind) -> tuple[dict[str, int], int]:
    layout = LAYOUTS[kind]
    found = reader.integers(len(layout.numbers), "the hyperparameters")
    numbers = dict(zip(layout.numbers, found, strict=True))
    count = numbers["vocabulary"]
    # A token takes 4 bytes at least, for its length.
    if not 0 < count <= min(MAX_VOCABULARY, reader.left // 4):
        raise reader.fail(f"it claims {count} tokens")
    if layout.repeats_count and reader.integers(1, "the number of tokens")[0] != count:
        raise reader.fail("it tells two numbers of tokens")
    version, numbers["file_type"] = divmod(numbers["file_type"], QUANTIZATION_FACTOR)
    return numbers, version


def _read_vocabulary(reader: _Reader, count: int, *, scored: bool) -> tuple[tuple[bytes, ...], tuple[float, ...]]:
    tokens: list[bytes] = []
    scores: list[float] = []
    for number in range(count):
        length = reader.integers(1, f"the length of token {number}")[0]
        if length > MAX_TOKEN:
            raise reader.fail(f"token {number} would have {length} bytes, more than the {MAX_TOKEN} allowed")
        tokens.append(reader.take(length, f"token {number}"))
        if scored:
            scores.append(struct.unpack("<f", reader.take(4, f"the score of token {number}"))[0])
    return tuple(tokens), tuple(scores)


def _read_tensor(reader: _Reader, aligned: bool, quantization_version: int) -> GGMLTensor:
    dimensions, length, number = reader.integers(3, "the beginning of a tensor")
    if dimensions not in (1, 2):
        raise reader.fail(f"a tensor has {dimensions} dimensions instead of 1 or 2")
    if length > MAX_NAME:
        raise reader.fail(f"a tensor's name would have {length} bytes, more than {MAX_NAME}")
    shape = reader.integers(dimensions, "the shape of a tensor")
    name = reader.take(length, "a tensor's name").decode("utf-8", "replace")
    kind = TENSOR_TYPES.get(number)
    if quantization_version < QUANTIZATION_VERSION:
        kind = OLD_TYPES.get(number, kind)
    if kind is None:
        raise reader.fail(f"the tensor {name} has the unknown type {number}")
    if 0 in shape or shape[0] % kind.block:
        raise reader.fail(f"the tensor {name} has the shape {shape}, which {kind.name} cannot store")
    start = reader.at + (-reader.at % 32 if aligned else 0)
    size = _elements(shape) // kind.block * kind.size
    if start + size > reader.size:
        raise reader.fail(f"the tensor {name} ends at byte {start + size}, and the file has {reader.size}")
    reader.seek(start + size)
    return GGMLTensor(name, shape, kind, start, size)


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
