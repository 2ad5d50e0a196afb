"""The process that holds the native library: loads one model and computes what it is sent, until its input ends.

It is started as a program by itself and imports nothing but the standard library, so that it starts quickly and no
other native library is in it. Native code may end it at any moment; that costs the request that was being computed.

The protocol, on standard input and output: frames of a letter, the length of the rest (4 bytes, little-endian) and the
rest.

======  ======================================================================================================
sent    rest
======  ======================================================================================================
``L``   JSON: the paths of the library and of the model, the library's name of the kind of model, the context
        length in tokens (0 leaves it to the file)
``E``   five integers of 4 bytes: position of the first token, tokens in one call of the library, threads,
        whether logits are wanted (1) or not (0), number of tokens; then the tokens, 4 bytes each
======  ======================================================================================================

An answer is ``K`` (it is done) or ``F`` (it failed, with a sentence in UTF-8). The rest of ``K`` is JSON with
"context" and "vocabulary" after ``L``, and after ``E`` the logits after the last token as 4-byte floats, or nothing.

The library's functions are those of ctransformers 0.2.27 (models/llm.cc).
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import select
import struct
import sys
import threading
from typing import Any, NoReturn

HEAD = struct.Struct("<cI")
EVALUATE = struct.Struct("<5i")
WATCH = 2.0
"""Seconds between two looks at whether the parent is still there."""


class Config(ctypes.Structure):
    """How the library is told to load a model."""

    _fields_ = (
        ("context_length", ctypes.c_int),
        ("gpu_layers", ctypes.c_int),
        ("mmap", ctypes.c_bool),
        ("mlock", ctypes.c_bool),
    )


class Model:
    """A loaded model of the library."""

    def __init__(self, library: str, path: str, kind: str, context: int) -> None:
        """Raises OSError where the library cannot be loaded, RuntimeError where it cannot load the model."""
        self._library = ctypes.CDLL(library)
        create = self._function("create", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, Config)
        self._evaluate = self._function(
            "batch_eval",
            ctypes.c_bool,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_int),
            *(ctypes.c_int,) * 4,
        )
        self._logits = self._function("logits_data", ctypes.c_void_p, ctypes.c_void_p)
        self._width = self._function("logits_size", ctypes.c_int, ctypes.c_void_p)
        self._handle = create(os.fsencode(path), kind.encode(), Config(context or -1, 0, True, False))
        if not self._handle:
            raise RuntimeError("the library refused the file")
        self.context = self._function("context_length", ctypes.c_int, ctypes.c_void_p)(self._handle)
        self.vocabulary = self._function("vocab_size", ctypes.c_int, ctypes.c_void_p)(self._handle)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(self._library, f"ctransformers_llm_{name}")
        function.restype, function.argtypes = result, arguments
        return function

    def evaluate(self, data: bytes) -> bytes:
        """Compute the tokens of a request. Raises RuntimeError where the library says that it failed."""
        position, batch, threads, wanted, count = EVALUATE.unpack_from(data)
        tokens = (ctypes.c_int * count).from_buffer_copy(data, EVALUATE.size)
        if not self._evaluate(self._handle, tokens, count, position, batch, threads):
            raise RuntimeError("the library could not compute these tokens")
        if not wanted:
            return b""
        return ctypes.string_at(self._logits(self._handle), 4 * self._width(self._handle))


def read_exactly(number: int, count: int) -> bytes:
    """That many bytes from a file descriptor; fewer only where it ends."""
    parts: list[bytes] = []
    while count:
        part = os.read(number, min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_all(number: int, data: bytes) -> None:
    """All of the bytes to a file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def wait_for_input(parent: int) -> None:
    """Return when there is something to read. End the process when its parent is gone.

    The input of a process whose parent is gone ends, unless a fork of the parent still holds the other end.
    """
    while sys.platform != "win32" and not select.select([0], [], [], WATCH)[0]:
        if os.getppid() != parent:
            os._exit(0)


def listen(requests: queue.SimpleQueue[tuple[bytes, bytes]]) -> None:
    """Put what is sent into the queue. When nothing more can come, the process ends, whatever it is computing."""
    parent = os.getppid()
    while True:
        wait_for_input(parent)
        head = read_exactly(0, HEAD.size)
        if len(head) < HEAD.size:
            os._exit(0)
        letter, length = HEAD.unpack(head)
        data = read_exactly(0, length)
        if len(data) < length:
            os._exit(0)
        requests.put((letter, data))


def serve() -> NoReturn:
    """Answer one request after the other."""
    # What the library prints goes where errors go: the answers have a way of their own.
    answers = os.dup(1)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(requests,), daemon=True).start()
    model: Model | None = None
    while True:
        letter, data = requests.get()
        try:
            if letter == b"L":
                model = Model(**json.loads(data))
                done = json.dumps({"context": model.context, "vocabulary": model.vocabulary}).encode()
            elif model is None:
                raise RuntimeError("no model was loaded")
            else:
                done = model.evaluate(data)
            answer = b"K", done
        except (OSError, RuntimeError, AttributeError) as error:
            answer = b"F", str(error).encode()
        write_all(answers, HEAD.pack(answer[0], len(answer[1])) + answer[1])


if __name__ == "__main__":
    serve()
