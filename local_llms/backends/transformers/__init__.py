"""Runs checkpoints with torch and the transformers library, which builds the networks; what drives them is here.

The library's ``generate`` is not used: it decodes a batch from beginning to end, and nobody can join or leave. No code
from a model's folder is ever run, and pickles are read as tensors only.

====================  ==================================================================================
``parts``             what a model is made of: network, vocabulary, attention, adapters; and layouts
``layouts``           ways in which checkpoints are written, in the order in which they are asked
``folder``            the library's own layout; ``lit``: LitGPT's and Lit-LLaMA's; ``gguf_file``: GGUF
``chatglm``           ChatGLM's original layouts, networks and tokenizers
``files``, ``config``, ``weights``  what a folder holds, read with bounds
``building``          a network of the library from configuration and tensors; ``quantize``, ``verify``, ``quiet``
``native``            such a network, driven packed
``tokenizer_json``, ``tokenizer_model``  vocabularies; with ``tokenizer_facts`` and ``pieces``
``cells``             which cell of the KV cache holds which token
``plan``              which tokens of a call are computed together in attention
``attention``         keys, values, and the attention over them
``sequences``         decode, copy, cut, free
``lora``, ``adapters``  adapters beside the weights; ``device``, ``lifetime``: what their names say
``backend``           ties these to the protocol
====================  ==================================================================================
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from local_llms.backends.base import Backend, LoadOptions
from local_llms.backends.transformers.layouts import layout_of
from local_llms.errors import MissingDependency, ModelFileError

NAME = "transformers"
READS = "folders with config.json and weights, LitGPT folders"


_PARTS = (".safetensors", ".bin", ".pth")


def claims(path: Path) -> str | None:
    """A folder in one of the layouts, or a file of weights in one. A GGUF file is read where it is asked for only."""
    place = _folder(path)
    found = layout_of(place) if place.is_dir() else None
    return None if found is None else found[1] if place == path else f"{found[1]}, and {path.name} lies in it"


def load(path: Path, options: LoadOptions) -> Backend:
    """Load a checkpoint: a folder in a known layout, or a GGUF file. A file of weights means its folder.

    Raises MissingDependency, ModelFileError, OptionError, AdapterError and UnsupportedFeature.
    """
    for library in ("torch", "transformers", "tokenizers", "safetensors"):
        if importlib.util.find_spec(library) is None:
            raise MissingDependency(library, extra="transformers", purpose="Running a model with transformers")
    place = _folder(path)
    found = layout_of(place)
    if found is None:
        raise ModelFileError(f"{path} is nothing that this backend reads. It reads {READS}, and GGUF files.")
    from local_llms.backends.transformers.backend import TransformersBackend

    return TransformersBackend(found[0].load(place, options), options)


def _folder(path: Path) -> Path:
    """The folder that is meant where a file of weights in it was given."""
    return path.parent if path.suffix in _PARTS and path.is_file() else path
