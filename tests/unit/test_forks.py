"""Models and a fork in the worst moment, while a thread loads: in processes of their own, since a mistake hangs."""

import subprocess
import sys

BEGINNING = """
import gc, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads about, which is what is tested
from local_llms import load_model
from local_llms.errors import EngineForked
from local_llms.testing.scripted import ScriptedBackend, say
from local_llms.testing.scripted_model import scripted_model

parent, loading, go_on = os.getpid(), threading.Event(), threading.Event()

def make():
    # What the main thread asks for is loaded in a thread of that name.
    if os.getpid() == parent and threading.current_thread().name != "local-llms-load":
        loading.set()
        go_on.wait()
    return ScriptedBackend(say("Hello"))

def fork(work):
    loading.wait()
    child = os.fork()
    if child == 0:
        work()
        gc.collect()
        sys.exit(0)
    go_on.set()
    print(os.waitpid(child, 0)[1])
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", BEGINNING + code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_model_that_is_loaded_again_meanwhile() -> None:
    code = """
with scripted_model(make) as model:
    loaded, other = load_model(model), load_model(model)
    loaded._shared._engine.close()  # as after an idle unload
    said = []
    thread = threading.Thread(target=lambda: said.append(loaded.generate("Hi").text))
    thread.start()

    def child():
        global other
        for use in (loaded.generate, loaded.tokenize, lambda text: loaded.embed([text]), load_model(model).generate):
            try:
                print(use("Hi").text, flush=True)
            except EngineForked:
                print("forked", flush=True)
        loaded.close()
        del other

    fork(child)
    thread.join()
    print(*said)
"""
    assert run(code).split() == ["forked", "forked", "forked", "Hello", "0", "Hello"]


def test_an_object_that_loads_meanwhile() -> None:
    code = """
from local_llms.llama_index import LocalLLM
with scripted_model(make) as model:
    llm = LocalLLM(model=model.path)
    said = []
    thread = threading.Thread(target=lambda: said.append(llm.complete("Hi").text))
    thread.start()
    fork(lambda: (print(llm.complete("Hi").text, flush=True), llm.close()))
    thread.join()
    print(*said)
"""
    assert run(code).split() == ["Hello", "0", "Hello"]
