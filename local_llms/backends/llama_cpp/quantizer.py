"""Stores the weights of a GGUF file smaller, with llama.cpp's own quantizer.

It runs in a process of its own: it can be stopped, its memory is free afterwards, and what it might not survive costs
one quantization.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from local_llms.cores import usable_cores
from local_llms.errors import MissingDependency, ModelFileError, OptionError, suggestion
from local_llms.hub.derived import derived
from local_llms.hub.gguf import GGUFHeader, TensorInfo, read_header
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.names import all_parts
from local_llms.hub.progress import Progress

_logger = logging.getLogger("local_llms")

_PROGRAM = Path(__file__).with_name("quantizer_program.py")
_STEP = re.compile(rb"\[\s*(\d+)/\s*\d+\]")
_WORDS = 5
"""Lines of what llama.cpp said last, for an error's text."""


class Form(NamedTuple):
    """A way to store weights: llama.cpp's number of it (enum llama_ftype), and the type that most tensors get."""

    number: int
    tensors: str


FORMS: Mapping[str, Form] = {
    "f16": Form(1, "F16"),
    "bf16": Form(32, "BF16"),
    "q8_0": Form(7, "Q8_0"),
    "q6_k": Form(18, "Q6_K"),
    "q5_k_m": Form(17, "Q5_K"),
    "q5_k_s": Form(16, "Q5_K"),
    "q5_1": Form(9, "Q5_1"),
    "q5_0": Form(8, "Q5_0"),
    "q4_k_m": Form(15, "Q4_K"),
    "q4_k_s": Form(14, "Q4_K"),
    "q4_1": Form(3, "Q4_1"),
    "q4_0": Form(2, "Q4_0"),
    "q3_k_m": Form(12, "Q3_K"),
    "q2_k": Form(10, "Q2_K"),
}
SHORT_NAMES = {"int8": "q8_0", "int4": "q4_0"}
"""What ``quantization=`` stands for. llama.cpp has kernels for both that compute several sequences at once; Q4_K_M,
more exact for its size, stores 256 weights together, which the rows of small models do not fill."""
_WHOLE = {"F32", "F16", "BF16", "F64"}
_BLOCK = 32
"""Weights of a row that are stored together in the simplest forms; other tensors are not quantized."""


def form_of(name: str) -> str:
    """The form that a name stands for: one of ``FORMS``, "int8" or "int4". Raises OptionError, naming the nearest."""
    wanted = name.lower()
    wanted = SHORT_NAMES.get(wanted, wanted)
    if wanted not in FORMS:
        raise OptionError(f"There is no quantization {name!r}.{suggestion(name, [*SHORT_NAMES, *FORMS])}")
    return wanted


def quantized(header: GGUFHeader, name: str, progress: Progress | None = None) -> GGUFHeader:
    """The same model in another form, from the cache or made now; the file itself where it has that form already.

    A file that is quantized already may be given: its error stays, and the log says so. Raises OptionError for an
    unknown form, ModelFileError where llama.cpp cannot do it, MissingDependency, and DownloadError where the cache has
    no room or cannot be written.
    """
    form = form_of(name)
    if main_type(header) == FORMS[form].tensors:
        return header
    path = derived(
        parts_of(header),
        form,
        ".gguf",
        lambda draft: quantize_to(header, draft, form, progress),
        size=largest_size(header, form),
    )
    return check_gguf(path)


def quantize_to(header: GGUFHeader, target: Path, form: str, progress: Progress | None = None) -> None:
    """Write a checked model to ``target`` in one of ``FORMS``. Raises ModelFileError and MissingDependency."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise MissingDependency("llama-cpp-python", extra="llama-cpp", purpose="Quantizing a GGUF model")
    if main_type(header) not in _WHOLE:
        _logger.warning(
            "%s is quantized already (%s): what that lost stays lost in %s. Better begin with its F16 or F32 file.",
            header.path,
            main_type(header),
            form.upper(),
        )
    sizes = [0, *accumulate(tensor.size for tensor in _tensors(header))]
    if progress is not None:
        progress.start(header.path.name, sizes[-1])
    try:
        said = _run(header.path, target, FORMS[form].number, sizes, progress)
    finally:
        if progress is not None:
            progress.finish()
    if said is not None:
        raise ModelFileError(f"llama.cpp could not store {header.path} as {form.upper()}: {said}")


def main_type(header: GGUFHeader) -> str:
    """The type that most weights have, such as "F16"."""
    weights: Counter[str] = Counter()
    for tensor in _tensors(header):
        weights[tensor.type.name] += tensor.elements
    return weights.most_common(1)[0][0]


def largest_size(header: GGUFHeader, form: str) -> int:
    """Bytes that the file in that form has at most. A tensor whose rows fill no blocks stays as it is."""
    bits = 16 if FORMS[form].tensors in _WHOLE else 9
    tensors = _tensors(header)
    weights = sum(
        tensor.size if len(tensor.shape) < 2 or tensor.shape[0] % _BLOCK else tensor.elements * bits // 8
        for tensor in tensors
    )
    # The new file's header names every tensor, with some numbers and a padding.
    return header.data_offset + weights + (header.alignment + 128) * len(tensors)


def parts_of(header: GGUFHeader) -> list[Path]:
    """The files of a model, which may be stored in several; ``header`` is that of the first."""
    return [header.path.with_name(name) for name in all_parts(header.path.name)]


def _tensors(header: GGUFHeader) -> list[TensorInfo]:
    return [*header.tensors, *(tensor for part in parts_of(header)[1:] for tensor in read_header(part).tensors)]


def _run(source: Path, target: Path, number: int, sizes: list[int], progress: Progress | None) -> str | None:
    """Run the program; None where it succeeded, else what llama.cpp said last."""
    command = [sys.executable, "-P", str(_PROGRAM), str(source), str(target), str(number), str(usable_cores())]
    lines: list[bytes] = []
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE) as process:
        try:
            for line in process.stderr or ():
                step = _STEP.search(line)
                if step and progress is not None:
                    progress.advance_to(sizes[min(int(step[1]), len(sizes) - 1)])
                if not step:
                    lines = [*lines[1 - _WORDS :], line]
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code == 0:
        return None
    said = " / ".join(line.decode("utf-8", "replace").strip() for line in lines)
    return f"{said} (exit code {code})"
