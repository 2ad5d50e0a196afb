"""Ctrl-C while a model is being loaded: heard at once, wherever the library is, and nothing stays in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from local_llms import load_model
from local_llms.errors import ModelLoadError
from local_llms.testing.scripted import ScriptedBackend
from local_llms.testing.scripted_model import scripted_model

PROGRAM = """
import ctypes, os, signal, sys, threading
from local_llms import load_model
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

told = threading.Event()
loads = []

def load():
    loads.append(ScriptedBackend(say("Hello there!")))
    if len(loads) == 1:
        # As a library does that tells what it is doing: Python called back from C.
        ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGINT))()
        assert threading.current_thread() is threading.main_thread() or told.wait(60)
    return loads[-1]

with scripted_model(load) as made:
    try:
        load_model(made)
    except KeyboardInterrupt:
        print("interrupted")
    told.set()
    for thread in threading.enumerate():
        if thread.name == "local-llms-load":
            thread.join()
    print("closed" if loads[0].closed else "open")
    with load_model(made) as again:
        print(again.generate("Hi").text)
"""


AT_ONCE = """
import threading

class Late(threading.Thread):
    def start(self):
        super().start()
        if self.name == "local-llms-load" and len(loads) <= 1 and not told.is_set():
            # The interrupt is heard before the thread counts as started.
            raise KeyboardInterrupt

threading.Thread = Late
import os
os.kill = lambda *arguments: None
"""


@pytest.mark.parametrize("before", ["", AT_ONCE], ids=["while it waits", "while it starts"])
def test_ctrl_c_while_a_library_calls_back(before: str) -> None:
    done = subprocess.run([sys.executable, "-c", before + PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["interrupted", "closed", "Hello there!"], done.stderr
    assert done.stderr == ""


def test_what_loading_raises_comes_through() -> None:
    def fail() -> ScriptedBackend:
        raise ModelLoadError("no memory")

    with scripted_model(fail) as made, pytest.raises(ModelLoadError, match="no memory"):
        load_model(made)
