"""What llama.cpp says goes to the logger "local_llms.llama_cpp" at level DEBUG, not to the terminal.

llama.cpp has one log callback for the whole process, which llama-cpp-python or somebody else may have set already. Ours
keeps what is said during our own calls and hands everything else on to the callback that it found.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from types import TracebackType
from typing import Any

import llama_cpp.llama_cpp as lib

logger = logging.getLogger("local_llms.llama_cpp")

_ERROR, _CONTINUED = 4, 5
"""Levels of ggml (enum ggml_log_level in ggml.h): an error, and the rest of the message before."""


class _ThreadState(threading.local):
    """Per thread: how many of our calls it is in, and the errors that the innermost one has met."""

    depth = 0
    errors: list[str]
    last_was_error = False
    handing_on = False


_state = _ThreadState()
_earlier: Any = None
_earlier_data = ctypes.c_void_p()
_lock = threading.Lock()


class Listening:
    """A context manager around calls of llama.cpp; ``errors`` are the messages of level ERROR, oldest first."""

    __slots__ = ("_outer", "errors")

    def __enter__(self) -> Listening:
        self.errors: list[str] = []
        self._outer = _state.errors if _state.depth else self.errors
        _state.depth += 1
        _state.errors = self.errors
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _state.depth -= 1
        _state.errors = self._outer

    def last_words(self) -> str:
        """The last errors as the end of a sentence: ": …", or "." where llama.cpp said nothing."""
        said = " / ".join(self.errors[-3:])
        return f": {said}" if said else "."


def install() -> None:
    """Route llama.cpp's messages. Called when a model is loaded, never at import: others may have set theirs since."""
    global _earlier, _earlier_data
    with _lock:
        found, data = lib.llama_log_callback(), ctypes.c_void_p()
        lib.llama_log_get(ctypes.byref(found), ctypes.byref(data))
        if _address(found) != _address(_callback):
            _earlier, _earlier_data = found, data
            lib.llama_log_set(_callback, None)


def _address(callback: Any) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value


def _receive(level: int, text: bytes, data: int | None) -> None:
    if not _state.depth:
        # Whoever set the one before may hand everything on to this one.
        if _earlier and not _state.handing_on:
            _state.handing_on = True
            try:
                _earlier(level, text, _earlier_data)
            finally:
                _state.handing_on = False
        return
    line = text.decode("utf-8", "replace").rstrip()
    is_error = level == _ERROR or (level == _CONTINUED and _state.last_was_error)
    if level != _CONTINUED:
        _state.last_was_error = is_error
    if line.strip("."):  # a row of dots is how llama.cpp shows progress
        if is_error:
            _state.errors.append(line)
        logger.debug(line)


_callback = lib.llama_log_callback(_receive)
