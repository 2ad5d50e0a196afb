"""The program of the process in which llama.cpp's quantizer runs: source, target, file type, threads.

What llama.cpp says goes to standard error, a line for each tensor among it.
"""

from __future__ import annotations

import ctypes
import os
import sys

import llama_cpp.llama_cpp as lib


def quantize(source: str, target: str, file_type: int, threads: int) -> bool:
    """Whether it could be done."""
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = threads
    parameters.allow_requantize = True
    return bool(lib.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)) == 0)


def _say(level: int, text: bytes, data: int | None) -> None:
    os.write(2, text)


if __name__ == "__main__":
    callback = lib.llama_log_callback(_say)
    lib.llama_log_set(callback, None)
    sys.exit(0 if quantize(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])) else 1)
