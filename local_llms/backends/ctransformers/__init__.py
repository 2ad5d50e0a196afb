"""Runs GGML files of 2023 with ctransformers: LLaMA (alpaca.cpp's too), GPT-NeoX (Dolly 2) and GPT-J. Legacy.

The library is unmaintained and ends its process over a damaged file, so files are checked in Python first, and it works
in a process of its own.

====================  ==================================================================================
``library``           where the native library is
``facts``             what a file says of its model, and how it is loaded
``vocabulary``        text ↔ ids, what both kinds share; ``pieces`` (SentencePiece) and ``byte_pairs`` are the
                      kinds, ``merging`` and ``splitting`` what they are made of
``child``             the program of the process that computes
``process``           that process from this side: started, asked, watched, ended
``sequences``         token ids of all sequences, one of which the library has computed
``backend``           ties these to the protocol
====================  ==================================================================================
"""

from __future__ import annotations

from pathlib import Path

from local_llms.backends.base import Backend, LoadOptions
from local_llms.hub.derived import derived
from local_llms.hub.ggml import GGMLHeader, probe
from local_llms.hub.ggml_check import check_ggml
from local_llms.hub.ggml_upgrade import needs_upgrade, upgrade

NAME = "ctransformers"
READS = "GGML files of 2023"


def claims(path: Path) -> str | None:
    """A file that begins like a GGML language model. Those of rwkv.cpp, whose magic number is the same, do not."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            found = probe(file.read(8))
    except OSError:
        return None
    return None if found is None else f"it begins like a GGML file ({found}), a format of 2023"


def load(path: Path, options: LoadOptions) -> Backend:
    """Check and load a GGML file; one of early 2023 is first rewritten in the cache, in the last form of the format.

    Raises MissingDependency, ModelFileError (ModelLoadError where only the library refuses it), OptionError, and
    DownloadError where the cache has no room.
    """
    header = check_ggml(path)
    if needs_upgrade(header):
        rewritten = derived([path], "ggjt3", ".bin", lambda draft: upgrade(header, draft), size=2 * header.size)
        return _load(check_ggml(rewritten), options, path.stem)
    return _load(header, options, path.stem)


def _load(header: GGMLHeader, options: LoadOptions, name: str) -> Backend:
    from local_llms.backends.ctransformers.backend import CTransformersBackend

    return CTransformersBackend.load(header, options, name)
