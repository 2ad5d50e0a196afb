"""Runs GGUF files with llama.cpp, through llama-cpp-python's low-level functions.

Its ``Llama`` class is not used: that serves one sequence, and two threads in it abort the process.

====================  ==================================================================================
``logs``              what llama.cpp says goes to the logger "local_llms.llama_cpp"
``native``            a loaded model and its context: opened, guarded against use after close and fork, freed
``compute``           the one thread of the process that computes
``facts``             what the file says of its model, and the context that suits it
``vocabulary``        text ↔ ids
``batch``             the tokens of one call, in arrays that llama.cpp reads
``loras``             the adapters that are opened, and the one that is computed with
``lora_convert``      from a PEFT folder to such a file
``lora_file``         whether an adapter's file is sound and fits the model
``sequences``         the KV cache or the recurrent states: decode, copy, cut, free
``embedder``          vectors of texts
``quantizer``         stores the weights of a file smaller; ``quantizer_program`` runs in a process of its own
``backend``           ties these to the protocol
====================  ==================================================================================
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from local_llms.backends.base import Backend, LoadOptions
from local_llms.backends.llama_cpp.quantizer import quantized
from local_llms.errors import AdapterError, MissingDependency, OptionError
from local_llms.hub.gguf_check import check_gguf
from local_llms.hub.progress import default_progress

NAME = "llama_cpp"
READS = "GGUF files"


def claims(path: Path) -> str | None:
    """A file that is called .gguf or begins like one."""
    if not path.is_file():
        return None
    if path.suffix.lower() == ".gguf":
        return "it is a .gguf file"
    try:
        with path.open("rb") as file:
            return "it begins like a GGUF file" if file.read(4) == b"GGUF" else None
    except OSError:
        return None


def load(path: Path, options: LoadOptions) -> Backend:
    """Check and load a GGUF file. With ``quantization`` it is first stored so in the cache, once.

    Raises MissingDependency, ModelFileError (ModelLoadError where only llama.cpp refuses it), UnsupportedFeature for a
    kind of model that this package cannot drive, OptionError, and DownloadError where the cache has no room.
    """
    header = check_gguf(path)
    _check_options(path, options)
    if importlib.util.find_spec("llama_cpp") is None:
        raise MissingDependency("llama-cpp-python", extra="llama-cpp", purpose="Running a GGUF model")
    if options.quantization is not None:
        header = quantized(header, options.quantization, default_progress("Quantizing"))
    from local_llms.backends.llama_cpp.backend import LlamaCppBackend

    return LlamaCppBackend.load(header, options)


def _check_options(path: Path, options: LoadOptions) -> None:
    """Refuse what this backend cannot do while loading."""
    if options.dtype is not None:
        raise OptionError(
            f"dtype={options.dtype!r}: the weights of {path} have the number types that the file stores them in. Leave "
            "dtype out, choose another file, or make the weights smaller with quantization=."
        )
    if options.adapter is not None:
        raise AdapterError(
            f"The adapter {options.adapter} replaces whole weights, such as embeddings of new tokens. That is beyond "
            "llama.cpp: load the model from its safetensors folder with the transformers backend, or merge the adapter "
            "into it and convert the result to GGUF."
        )
