"""Runs RWKV of the versions 4, 5, 5.1, 5.2, 6 and 7, from .pth, safetensors, or the files of rwkv.cpp.

The networks are this package's own, in plain torch: any number of sequences in one pass, prompts read many tokens at a
time, and nothing global. Of the rwkv package only the World vocabulary is read; its code is what tests compare with.

====================  ==================================================================================
``files``             which files hold RWKV weights
``ggmf``              the tensors of an rwkv.cpp file
``checkpoint``        weights of any format
``weights``           tensors taken by name, checked for their shape
``batch``             the tokens of several sequences as rows
``states``            the recurrent states of all sequences
``recurrence``        how a token changes the state, from version 5 on
``layers``            what the versions have in common
``rwkv4`` … ``rwkv7``  the versions
``network``           a network of any version
``greedy``            the World vocabulary, and that of bytes
``vocabulary``        which vocabulary a model has
``sequences``         decode, copy, cut, free
``backend``           ties these to the protocol
====================  ==================================================================================
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from local_llms.backends.base import Backend, LoadOptions
from local_llms.backends.rwkv.files import kind_of
from local_llms.errors import MissingDependency

NAME = "rwkv"
READS = "RWKV weights: .pth, .safetensors, and files of rwkv.cpp"


def claims(path: Path) -> str | None:
    """A file of rwkv.cpp, or one whose weights have RWKV's names; or a folder with such a file."""
    return kind_of(path)


def load(path: Path, options: LoadOptions) -> Backend:
    """Check and load RWKV weights.

    Raises MissingDependency, ModelFileError (ModelLoadError where memory does not suffice), OptionError and
    UnsupportedFeature.
    """
    for library in ("torch", "safetensors"):
        if importlib.util.find_spec(library) is None:
            raise MissingDependency(library, extra="rwkv", purpose="Running RWKV weights")
    from local_llms.backends.rwkv.backend import RwkvBackend

    return RwkvBackend.load(path, options)
