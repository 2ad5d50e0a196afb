"""The child process from the parent's side: started, asked, watched, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from local_llms.backends.ctransformers import child
from local_llms.errors import DecodeError, EngineClosed, ModelLoadError

PATIENCE = 30.0
"""Seconds that a process which was told to stop may go on with the few tokens that it is at, before it is ended."""
_LOOK = 0.2
"""Seconds between two looks at whether it was told to."""
_WORDS = 600
"""Bytes of what the library printed last, for an error's text."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the child loads. ``kind`` is the library's name of it, ``context`` 0 where the file decides."""

    library: Path
    path: Path
    kind: str
    context: int


class ChildDied(DecodeError):
    """The process that computed is gone, and with it what it knew; the next call starts another one."""

    retryable = True


class Child:
    """One child process at a time, started when it is needed and again after it died.

    All methods but ``kill`` are called by one thread at a time; ``kill`` by any. ``close`` comes after it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._closed = False
        self.starts = 0
        """How many processes were started."""
        self.context = 0
        self.vocabulary = 0

    @property
    def pid(self) -> int | None:
        """The number of the running process; None where there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def alive(self) -> bool:
        """Whether a process is there that knows what was computed."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a process and load the model. Raises ModelLoadError, and EngineClosed after ``kill``."""
        self._end()
        with self._lock:
            self._check_open()
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
            # -P: the folder of the program, whose files are no top-level modules, is not searched for modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                # Ctrl-C in a terminal goes to a whole group of processes. It is meant for the parent, which may only
                # want to end an answer.
                start_new_session=True,
            )
            self.starts += 1
        spec = self._spec
        request = {"library": str(spec.library), "path": str(spec.path), "kind": spec.kind, "context": spec.context}
        try:
            known = json.loads(self._ask(b"L", json.dumps(request).encode()))
        except DecodeError as error:
            self._end()
            raise ModelLoadError(
                f"ctransformers could not load {spec.path}: {error} Convert it to GGUF; docs/backends.md says how."
            ) from None
        except BaseException:
            self._end()
            raise
        self.context, self.vocabulary = known["context"], known["vocabulary"]

    def evaluate(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        batch: int,
        threads: int,
        logits: bool,
        stopped: threading.Event | None = None,
    ) -> NDArray[np.float32] | None:
        """Compute tokens from a position on, over what the process knows before it; the row after the last one.

        ``stopped``: once it is set, a process that does not answer is ended after a while.

        Raises ChildDied where the process ended, DecodeError where the library refused, EngineClosed after ``kill``.
        """
        data = child.EVALUATE.pack(position, batch, threads, logits, len(tokens))
        try:
            row = self._ask(b"E", data + np.asarray(tokens, "<i4").tobytes(), stopped)
        except ChildDied as error:
            raise ChildDied(f"{error} Only this request is lost: the next one starts it again.") from None
        return np.frombuffer(row, "<f4") if logits else None

    def kill(self) -> None:
        """End the process for good, whatever it is doing: a call that waits for it raises EngineClosed."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Take away what is left of the process. Nobody may be in a call any more."""
        self._end()

    def _ask(self, letter: bytes, data: bytes, stopped: threading.Event | None = None) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            self._check_open()
            raise ChildDied("The process that computes is not running.")
        try:
            child.write_all(process.stdin.fileno(), child.HEAD.pack(letter, len(data)) + data)
            answers = process.stdout.fileno()
            if stopped is not None and not _answers(answers, stopped):
                process.kill()
            head = child.read_exactly(answers, child.HEAD.size)
            kind, length = child.HEAD.unpack(head) if len(head) == child.HEAD.size else (b"", 0)
            rest = child.read_exactly(answers, length)
        except (OSError, ValueError):
            kind, length, rest = b"", 0, b""
        if not kind or len(rest) < length:
            self._check_open()
            raise ChildDied(self._obituary())
        if kind == b"F":
            raise DecodeError(f"{rest.decode('utf-8', 'replace')}{self._last_words()}.")
        return rest

    def _obituary(self) -> str:
        """How the process ended, and what it said last; it is gone afterwards."""
        process, words = self._process, self._last_words()
        code = process.wait() if process is not None else 0
        self._end()
        how = f"exit code {code}" if code >= 0 else _signal_name(-code)
        return f"The process in which ctransformers computes died ({how}){words}."

    def _last_words(self) -> str:
        if self._said is None:
            return ""
        end = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, end - _WORDS))
        said = " / ".join(self._said.read().decode("utf-8", "replace").split("\n")).strip(" /")
        return f": {said}" if said else ""

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed("The model was closed. Load it again with load_model().")

    def _end(self) -> None:
        """Take the process away: killed where it lives, waited for, its pipes closed."""
        with self._lock:
            process, self._process = self._process, None
            said, self._said = self._said, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if said is not None:
            said.close()


def _answers(number: int, stopped: threading.Event) -> bool:
    """Wait until there is something to read, which is the end as well; False where that takes too long."""
    end: float | None = None
    while sys.platform != "win32" and not select.select([number], [], [], _LOOK)[0]:
        if stopped.is_set():
            end = end or time.monotonic() + PATIENCE
            if time.monotonic() > end:
                return False
    return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
